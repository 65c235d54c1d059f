#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// Which modules: by name (the whole path, or its end after a dot), by regular expression (the whole path), or every
// linear layer but the output head.
struct ModulePattern {
  std::vector<std::string> names;
  std::string regex;        // used when not empty
  bool all_linear = false;  // "all-linear"

  bool empty() const { return names.empty() && regex.empty() && !all_linear; }
  bool operator==(const ModulePattern&) const = default;
};

// "q_proj,v_proj", "all-linear", a glob ("*_proj") or a regular expression, as the command line takes them.
ModulePattern parse_module_pattern(std::string_view text);

// A LoRA adapter's settings, with PEFT's meaning (adapter_config.json; the PEFT name where it differs).
struct LoraConfig {
  int64_t rank = 8;         // "r": A is [rank, in], B is [out, rank]
  double alpha = 16.0;      // "lora_alpha"
  double dropout = 0.0;     // "lora_dropout": probability in [0, 1), training only
  bool use_rslora = false;  // scale by alpha / sqrt(rank), arXiv:2312.03732
  bool use_dora = false;    // weight-decomposed, arXiv:2402.09353
  ModulePattern target_modules;
  ModulePattern exclude_modules;
  // Keys match the end of a module's path as (.*\.)?(KEY)$; the first that matches counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::vector<int64_t> layers_to_transform;  // empty: all; not with a regular expression
  std::vector<std::string> layers_pattern;   // what stands before the layer's number ("layers"); empty: anything
  std::vector<std::string> modules_to_save;  // trained in full and stored whole
  std::string base_model_name_or_path;

  double scaling(int64_t module_rank, double module_alpha) const;
  double scaling() const { return scaling(rank, alpha); }
  // One Error names every fault. `where` stands in front: a file, or "LoRA config".
  void validate(std::string_view where = "LoRA config") const;
};

// adapter_config.json of PEFT. Unknown keys are ignored; what would change the result and graft cannot do (bias, DoRA
// variants, trained tokens, PiSSA's changed base, …) is refused by name, all at once.
LoraConfig parse_lora_config(const Json& json, std::string_view where);

// The stable core of keys that every PEFT version reads, and what is set beyond it; sorted.
Json lora_config_json(const LoraConfig& config);

enum class ModuleKind { kLinear, kExpert, kRouter, kHead, kEmbedding };

// A module that an adapter may sit on, as the model layer lists them. Linear: y [out] = W [out, in] x. Embedding: in is
// the vocabulary, out the hidden size.
struct BaseModule {
  std::string path;  // "model.layers.0.self_attn.q_proj"
  ModuleKind kind = ModuleKind::kLinear;
  int64_t in = 0, out = 0;
};

struct LoraTarget {
  BaseModule module;
  int64_t rank = 0;
  double alpha = 0, scaling = 0;
  bool operator==(const LoraTarget& o) const {
    return module.path == o.module.path && rank == o.rank && alpha == o.alpha && scaling == o.scaling;
  }
};

// The modules that a config chooses, in their order, with rank, alpha and scaling each. An Error (all faults together)
// where a target, a layer or a module to save is not in the model, close names with it. `training` also refuses a rank
// above min(in, out), pattern keys without a module, and targets or layers that are not there beside others that are:
// files made elsewhere may have them, and they do no harm there (a warning). "all-linear" takes kLinear and kExpert.
std::vector<LoraTarget> resolve_targets(const LoraConfig& config, std::span<const BaseModule> modules,
                                        std::string_view where = "LoRA config", bool training = true);

// Does a list of names hold this path: whole, or as its end after a dot?
bool names_module(std::span<const std::string> names, std::string_view path);

// The same for modules_to_save, where PEFT asks for no dot: "norm" names input_layernorm and q_norm as well as model.norm.
bool saves_module(std::span<const std::string> names, std::string_view path);

}  // namespace graft
