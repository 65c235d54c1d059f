#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/dtype.h"
#include "graft/base/json.h"

namespace graft {

// How rotary frequencies are changed to reach further than a model was trained (transformers modeling_rope_utils).
struct RopeScaling {
  std::string type = "default";  // default, linear, dynamic, ntk, llama3, yarn, longrope
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_max_position_embeddings = 0;          // always set: max_position_embeddings where not given
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn, longrope
  bool truncate = true;                                            // yarn: correction range rounded to whole dimensions
  std::vector<double> short_factor, long_factor;                   // longrope: head_dim / 2 each
};

// The feed-forward layers of a mixture of experts, in one vocabulary for mixtral, qwen3_moe, qwen2_moe and graft_moe.
struct MoeConfig {
  int64_t num_experts = 0, num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;            // inner size of an expert
  int64_t shared_expert_intermediate_size = 0;  // 0: no shared expert
  bool norm_topk_prob = true;                   // the chosen weights are divided by their sum
  std::vector<bool> sparse_layers;              // per layer: experts, or a dense MLP of intermediate_size
  double router_aux_loss_coef = 0.0, router_z_loss_coef = 0.0;
  bool output_router_logits = false;  // the auxiliary loss is part of the loss
  double capacity_factor = 0.0;       // 0: no token is dropped
};

// config.json of a decoder, in its own words. Every field is checked; `raw` is the file as it was, to be written back.
struct ModelConfig {
  std::string where;       // the file, for messages
  std::string model_type;  // llama, mistral, qwen2, qwen3, mixtral, qwen3_moe, qwen2_moe, graft_moe
  std::vector<std::string> architectures;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool rope_interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + head_dim / 2); graft_moe only
  std::string hidden_act = "silu";
  bool tie_word_embeddings = false;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;  // from attention_bias and the family
  bool qk_norm = false;                                     // RMSNorm over head_dim of q and k before rotation (qwen3)
  // Per layer: 0 sees every earlier position; W > 0 sees positions p - W + 1 … p.
  std::vector<int64_t> layer_windows;
  std::optional<int64_t> bos_token_id, pad_token_id;
  std::vector<int64_t> eos_token_ids;
  double initializer_range = 0.02;
  std::optional<DType> torch_dtype;  // what the file says the weights are stored in
  std::optional<MoeConfig> moe;
  Json raw;
};

// What a family's files call the parts of a layer with experts: LAYER.block.gate is the router, LAYER.block.experts.E.gate
// (up, down) an expert's matrices.
struct ExpertNames {
  std::string block, gate, up, down;
};
ExpertNames expert_names(const ModelConfig& config);

// Model types that parse_model_config understands.
std::span<const std::string_view> known_model_types();

// Reads and checks a config. One Error lists every fault with field, value and allowed range. Both generations of
// transformers are read (rope_theta and rope_scaling, or rope_parameters, also nested per layer type; torch_dtype or
// dtype). A field that is missing takes the family's default; where that matters, it is logged. `supported`: the model
// types the caller can build (all known ones if empty); any other is refused with the list.
ModelConfig parse_model_config(const Json& json, std::string_view where,
                               std::span<const std::string_view> supported = {});
ModelConfig load_model_config(const std::string& folder, std::span<const std::string_view> supported = {});

// generation_config.json: what stops generation and how its maker samples. All fields are optional.
struct GenerationConfig {
  std::optional<int64_t> bos_token_id, pad_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
  std::optional<int64_t> top_k, max_new_tokens, max_length;
  Json raw = Json::object();
};
GenerationConfig parse_generation_config(const Json& json, std::string_view where);
GenerationConfig load_generation_config(const std::string& folder);  // empty if the folder has none

// What ends an answer: the ids of generation_config.json, else of config.json. May be empty.
std::vector<int64_t> stop_token_ids(const ModelConfig& config, const GenerationConfig& generation);

}  // namespace graft
