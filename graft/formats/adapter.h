#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/formats/lora_config.h"
#include "graft/formats/model_folder.h"
#include "graft/formats/safetensors.h"

namespace graft {

// One adapted module: y += scaling * (x A^T) B^T. An embedding adds scaling * (A^T B^T)[id] to the row of id.
struct AdapterTensor {
  std::string module;      // "model.layers.0.self_attn.q_proj"
  bool embedding = false;  // stored as lora_embedding_A, _B; in is the vocabulary
  int64_t rank = 0, in = 0, out = 0;
  double alpha = 0, scaling = 0;
  std::vector<float> a;          // [rank, in]
  std::vector<float> b;          // [out, rank]
  std::vector<float> magnitude;  // [out]: DoRA; else empty
};

// A tensor that takes the place of the base's (modules_to_save; the base_layer that PEFT stores beside an adapted
// embedding).
struct SavedTensor {
  std::string name;  // the base's: "lm_head.weight"
  std::vector<int64_t> shape;
  std::vector<float> values;
  bool trained = true;  // false for base_layer copies
};

struct Adapter {
  std::string path;  // the file of tensors, for messages
  LoraConfig config;
  std::vector<AdapterTensor> tensors;
  std::vector<SavedTensor> saved;
  Metadata metadata;  // of the file: step, loss, learning rate, … ; format = pt is understood

  const AdapterTensor* find(std::string_view module) const;  // null if the module is not adapted
  int64_t num_parameters() const;
};

enum class AdapterLayout {
  kPeft,   // base_model.model.PATH.lora_A.weight [r, in], lora_B.weight [out, r]
  kMlx,    // PATH.lora_a [in, r], lora_b [r, out]; scale multiplies directly
  kLayers  // layers.I.MODULE.lora_a [in, r], lora_b [r, out] (metal-candle)
};

// An adapter as its headers show it: no values read.
struct AdapterHeader {
  AdapterHeader() = default;
  AdapterHeader(AdapterHeader&&) = default;  // entries point into file: no copies
  AdapterHeader& operator=(AdapterHeader&&) = default;
  std::string path;  // of the tensors
  AdapterLayout layout = AdapterLayout::kPeft;
  LoraConfig config;  // targets taken from the tensors where no config names them
  bool has_config = false;
  SafetensorsHeader file;
  struct Entry {
    std::string module;
    bool embedding = false;
    const TensorInfo *a = nullptr, *b = nullptr, *magnitude = nullptr;  // into file.tensors; null when missing
  };
  std::vector<Entry> entries;  // by module, layers in their order
  struct Saved {
    std::string name;
    const TensorInfo* tensor = nullptr;
    bool trained = true;
  };
  std::vector<Saved> saved;
  std::vector<std::string> foreign;  // tensors of no known kind
};

// `path`: a PEFT folder, an mlx-lm folder, or a .safetensors (a config beside it is used). Pickles and configs that
// graft cannot follow are refused.
AdapterHeader read_adapter_header(const std::string& path);

// The adapted modules with sizes as their own tensors have them, rank, alpha and scaling: what there is to know without
// a base.
std::vector<LoraTarget> adapter_targets(const AdapterHeader& header);
// Every tensor that is missing, extra or of another shape than the config and, if given, the base imply; empty if none.
std::vector<std::string> adapter_faults(const AdapterHeader& header, std::span<const BaseModule> modules = {});

struct LoadAdapterOptions {
  // The base: with modules, the adapter must hold exactly the tensors that its config implies, each of its shape.
  std::span<const BaseModule> modules = {};
  std::span<const ExpectedTensor> base_tensors = {};  // for the shapes of modules to save; not checked when empty
  bool partial = false;  // take what fits: missing, extra and mis-shaped tensors become warnings
};

// Reads, checks and widens to f32. Errors list all tensors that are missing, extra, mis-shaped or not finite. The order
// of `tensors` is that of `modules`, else by name with layers in their order.
Adapter load_adapter(const std::string& path, const LoadAdapterOptions& options = {});

// Writes a PEFT folder: adapter_model.safetensors, adapter_config.json (last), README.md if `readme` is not empty. The
// folder is created; each file appears whole.
void write_adapter(const std::string& folder, const Adapter& adapter, std::string_view readme = {},
                   DType dtype = DType::kF32);

// The PEFT names of an adapter's tensors, as gradients and optimizer moments are named too.
std::string peft_name(std::string_view module,
                      std::string_view part);  // part: lora_A.weight, lora_B.weight, lora_magnitude_vector
inline std::string peft_name_a(const AdapterTensor& t) {
  return peft_name(t.module, t.embedding ? "lora_embedding_A" : "lora_A.weight");
}
inline std::string peft_name_b(const AdapterTensor& t) {
  return peft_name(t.module, t.embedding ? "lora_embedding_B" : "lora_B.weight");
}
inline std::string peft_name_magnitude(const AdapterTensor& t) { return peft_name(t.module, "lora_magnitude_vector"); }
std::string peft_name_saved(const SavedTensor& t);

// "layers.9" before "layers.10": numbers compare as numbers.
bool natural_less(std::string_view a, std::string_view b);

}  // namespace graft
