// The first byte chooses: config.json, generation_config.json, model.safetensors.index.json or adapter_config.json with the
// choice of modules it makes.
#include <cstdint>
#include <string_view>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/base/log.h"
#include "graft/formats/lora_config.h"
#include "graft/formats/model_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const Json json = parse_json(text, "fuzz.json");
    switch (data[0] % 4) {
      case 0: {
        const ModelConfig config = parse_model_config(json, "config.json");
        if (config.num_attention_heads % config.num_key_value_heads != 0 || config.head_dim < 1) __builtin_trap();
        if (config.layer_windows.size() != static_cast<size_t>(config.num_hidden_layers)) __builtin_trap();
        break;
      }
      case 1: parse_generation_config(json, "generation_config.json"); break;
      case 2:
        for (const auto& [tensor, file] : parse_weight_index(json, "index.json")) {
          if (file.find('/') != std::string::npos || file.find("..") == 0) __builtin_trap();
        }
        break;
      default: {
        const LoraConfig config = parse_lora_config(json, "adapter_config.json");
        const std::vector<BaseModule> modules = {{"model.layers.0.self_attn.q_proj", ModuleKind::kLinear, 16, 16},
                                                 {"model.layers.1.mlp.down_proj", ModuleKind::kLinear, 24, 16},
                                                 {"lm_head", ModuleKind::kHead, 16, 288}};
        if (lora_config_json(parse_lora_config(lora_config_json(config), "again")) != lora_config_json(config)) {
          __builtin_trap();
        }
        for (const LoraTarget& target : resolve_targets(config, modules)) {
          if (target.rank < 1 || !(target.scaling > 0)) __builtin_trap();
        }
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
