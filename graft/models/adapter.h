#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/formats/lora_config.h"
#include "graft/graph/plan.h"
#include "graft/models/decoder.h"
#include "graft/models/model.h"

namespace graft {

// A matrix or vector of an adapter, f32 rows.
struct AdapterMatrix {
  int64_t rows = 0, columns = 0;  // a vector has one column
  bool is_vector = false;
  Buffer data;
  AdapterMatrix() = default;
  AdapterMatrix(int64_t r, int64_t c, bool vector = false)
      : rows(r), columns(c), is_vector(vector), data(static_cast<size_t>(r * c) * sizeof(float)) {}
  std::span<float> values() const { return data.as<float>(); }
};

// An adapter in memory: what the graph needs to know, and tensors by the graph's names ("PATH.lora_A", "PATH.weight").
struct AdapterWeights {
  LoraConfig config;
  AdapterSites sites;
  std::map<std::string, AdapterMatrix> tensors;

  // A fresh adapter on a model: A drawn by `init` (kaiming, gaussian, gaussian_rank, gaussian_in), named by (seed, tensor), B = 0, DoRA's
  // magnitudes the norms of the base's rows, saved modules copies of the base. Errors: targets as resolve_targets.
  static AdapterWeights create(Context& context, const Model& model, const LoraConfig& config, std::string_view init,
                               uint64_t seed);
  // An adapter folder (PEFT, mlx-lm) or file made for this model.
  static AdapterWeights load(Context& context, const Model& model, const std::string& path, bool partial = false);
  // PEFT's adapter_config.json and adapter_model.safetensors in `folder`.
  void save(const std::string& folder, const std::map<std::string, std::string>& metadata = {}) const;

  void bind(Plan& plan, const DecoderGraph& graph, size_t slot = 0) const;
  int64_t num_parameters() const;
};

// [rows, columns] as [columns, rows]: adapters of an embedding are held by token and stored the other way.
std::vector<float> transposed(const std::vector<float>& m, int64_t rows, int64_t columns);

// The modules of a model as adapters see them.
std::vector<BaseModule> base_modules(const ModelConfig& config);
AdapterSites adapter_sites(const LoraConfig& config, const ModelConfig& model, std::string_view where, bool training);

}  // namespace graft
