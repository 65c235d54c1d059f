#include "graft/models/model.h"

#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/base/log.h"

namespace graft {
namespace {

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

// The mapped file is read front to back in pieces whose pages are let go, so that loading needs no second copy of a tensor.
void pack(Context& context, const TensorFolder& tensors, const TensorInfo& info, Weight& weight) {
  const auto bytes = tensors.bytes(info);
  weight.pack_rows(context, 0, weight.out_features(), info.dtype, bytes.data());
  tensors.drop(info);
}

void read_rows(const TensorFolder& tensors, const TensorInfo& info, std::span<float> rows) {
  read_as_f32(tensors.bytes(info), info.dtype, rows.data(), info.name);
  tensors.drop(info);
}

Buffer read_vector(const TensorFolder& tensors, const TensorInfo& info, bool f64) {
  const int64_t n = elements(info.shape);
  const std::vector<float> values = tensors.read_f32(info.name);
  Buffer buffer(static_cast<size_t>(n) * (f64 ? sizeof(double) : sizeof(float)));
  if (f64) {
    std::copy(values.begin(), values.end(), buffer.as<double>().begin());
  } else {
    std::copy(values.begin(), values.end(), buffer.as<float>().begin());
  }
  tensors.drop(info);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      log_warning("{}: tensor '{}' holds {} at {}; answers will be NaN", tensors.where(), info.name, values[i], i);
    }
  }
  return buffer;
}

}  // namespace

DType kept_dtype(DType stored, const ModelLoadOptions& options) {
  if (options.f64) return DType::kF64;
  if (options.rows || stored == DType::kF32 || stored == DType::kF64) return DType::kF32;
  return stored == DType::kF16 ? DType::kF16 : DType::kBF16;  // 8-bit floats fit bf16 exactly
}

RopeParameters rope_parameters(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  RopeParameters p;
  using Type = RopeParameters::Type;
  p.type = s.type == "linear"    ? Type::kLinear
           : s.type == "dynamic" ? Type::kDynamic
           : s.type == "ntk"     ? Type::kNtk
           : s.type == "llama3"  ? Type::kLlama3
           : s.type == "yarn"    ? Type::kYarn
                                 : Type::kDefault;
  GRAFT_CHECK(p.type != Type::kDefault || s.type == "default",
              "{}: rope type '{}' is not supported, known are default, linear, dynamic, llama3, yarn", c.where,
              printable(s.type));
  p.theta = c.rope_theta;
  p.head_dim = c.head_dim;
  p.factor = s.factor;
  p.low_freq_factor = s.low_freq_factor, p.high_freq_factor = s.high_freq_factor;
  p.beta_fast = s.beta_fast, p.beta_slow = s.beta_slow;
  p.attention_factor = s.attention_factor.value_or(0), p.mscale = s.mscale.value_or(0),
  p.mscale_all_dim = s.mscale_all_dim.value_or(0);
  p.truncate = s.truncate;
  p.original_max_position_embeddings = s.original_max_position_embeddings;
  p.max_position_embeddings = c.max_position_embeddings;
  return p;
}

Model Model::load(Context& context, const ModelFolder& folder, const ModelLoadOptions& options) {
  Model model;
  model.config_ = folder.config;
  model.family_ = &family_of(folder.config);
  model.in_rows_ = options.rows;
  const std::vector<ExpectedTensor> expected = model.family_->tensors(folder.config);
  folder.tensors.check(expected);
  for (const ExpectedTensor& tensor : expected) {
    const TensorInfo& info = folder.tensors.at(tensor.name);
    Parameter& p = model.parameters_[tensor.name];
    p.shape = tensor.shape;
    p.stored = info.dtype;
    if (p.is_matrix() && options.rows) {
      p.rows = Buffer(static_cast<size_t>(elements(tensor.shape)) * sizeof(float));
      read_rows(folder.tensors, info, p.rows.as<float>());
    } else if (p.is_matrix()) {
      p.weight = Weight(kept_dtype(info.dtype, options), tensor.shape[0], tensor.shape[1]);
      pack(context, folder.tensors, info, p.weight);
    } else {
      p.vector = read_vector(folder.tensors, info, options.f64);
    }
  }
  return model;
}

size_t Model::bytes() const {
  size_t sum = 0;
  for (const auto& [name, p] : parameters_) sum += p.weight.bytes() + p.rows.bytes() + p.vector.bytes();
  return sum;
}

Operand<float> Parameter::operand() const {
  Operand<float> operand;
  if (rows.bytes() > 0) {
    operand.rows = View<const float, 2>(rows.as<float>().data(), shape[0], shape[1]);
  } else {
    operand.weight = &weight;
  }
  return operand;
}

void Parameter::copy(Context& context, int64_t first, int64_t count, float* to) const {
  if (is_matrix() && rows.bytes() == 0) return weight.unpack_rows(context, first, count, to);
  const int64_t columns = is_matrix() ? shape[1] : 1;
  std::copy_n((is_matrix() ? rows : vector).as<float>().data() + first * columns, count * columns, to);
}

void Model::bind(Plan& plan, const DecoderGraph& graph) const {
  for (const auto& [name, value] : graph.parameters) {
    const auto it = parameters_.find(name);
    GRAFT_CHECK(it != parameters_.end(), "the graph names '{}', which the model does not have", name);
    const Parameter& p = it->second;
    GRAFT_CHECK((graph.graph.info(value).kind == ValueKind::kWeight) == (p.is_matrix() && !in_rows_),
                "the graph takes '{}' in another layout than the model has it in", name);
    plan.bind(value, !p.is_matrix() ? p.vector.data() : in_rows_ ? p.rows.data() : static_cast<const void*>(&p.weight));
  }
}

RopeTable Model::rope_table(int64_t length) const { return make_rope_table(rope_parameters(config_), length, length); }

size_t model_bytes(const ModelFolder& folder, const ModelLoadOptions& options) {
  size_t sum = 0;
  for (const ExpectedTensor& tensor : family_of(folder.config).tensors(folder.config)) {
    const TensorInfo* info = folder.tensors.find(tensor.name);
    const DType stored = info != nullptr ? info->dtype : DType::kF32;
    sum += tensor.shape.size() == 2 && !options.rows
               ? Weight::packed_bytes(kept_dtype(stored, options), tensor.shape[0], tensor.shape[1])
               : static_cast<size_t>(elements(tensor.shape)) * 4;
  }
  return sum;
}

}  // namespace graft
