#pragma once

#include <map>
#include <string>
#include <vector>

#include "graft/formats/model_folder.h"
#include "graft/graph/plan.h"
#include "graft/kernels/context.h"
#include "graft/kernels/rope.h"
#include "graft/kernels/weight.h"
#include "graft/models/decoder.h"

namespace graft {

// One tensor of a model in memory: a matrix in panels or in rows, or a vector.
struct Parameter {
  std::vector<int64_t> shape;
  DType stored = DType::kF32;  // as the file has it
  Weight weight;               // matrices
  Buffer rows;                 // matrices of a model that is loaded in rows, instead: f32 [out, in]
  Buffer vector;               // norms and biases: f32 (f64 in test models)
  bool is_matrix() const { return shape.size() == 2; }
  Operand<float> operand() const;  // of a matrix
  // Rows of a matrix as f32, or elements of a vector.
  void copy(Context& context, int64_t first, int64_t count, float* to) const;
};

struct ModelLoadOptions {
  // Matrices are kept in panels of the type they came in (f64 and 8-bit floats become f32 and bf16); or in f32 rows, for full fine-tuning: the
  // optimizer works on what the products read.
  bool rows = false;
  bool f64 = false;  // tests: every parameter in double, through the scalar reference
};

// A model's parameters, each in memory once. After loading nothing reads the mapping.
class Model {
 public:
  static Model load(Context& context, const ModelFolder& folder, const ModelLoadOptions& options = {});
  // What init_model (init.h) writes and load reads back, in f32 and without a file.
  static Model random(Context& context, const ModelConfig& config, uint64_t seed, const ModelLoadOptions& options = {});

  const ModelConfig& config() const { return config_; }
  const Family& family() const { return *family_; }
  std::map<std::string, Parameter>& parameters() { return parameters_; }
  const std::map<std::string, Parameter>& parameters() const { return parameters_; }
  size_t bytes() const;
  bool in_rows() const { return in_rows_; }

  // Binds every base parameter that the graph names.
  void bind(Plan& plan, const DecoderGraph& graph) const;
  // A rotary table for sequences up to `length`.
  RopeTable rope_table(int64_t length) const;

 private:
  ModelConfig config_;
  const Family* family_ = nullptr;
  std::map<std::string, Parameter> parameters_;
  bool in_rows_ = false;
};

// The type a matrix stored as `dtype` is kept in.
DType kept_dtype(DType stored, const ModelLoadOptions& options);
RopeParameters rope_parameters(const ModelConfig& config);

// Bytes that the parameters of a model will take, from headers only.
size_t model_bytes(const ModelFolder& folder, const ModelLoadOptions& options = {});

}  // namespace graft
