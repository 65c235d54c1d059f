#include "graft/formats/model_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/formats/json_fields.h"

namespace graft {
namespace {

// What a family does that its config may leave unsaid (the defaults of transformers' config classes, but for rope_theta
// of the Qwen families: every published model has 1e6 where the class says 1e4).
struct Family {
  std::string_view model_type, architecture;
  double rope_theta;
  int64_t max_position_embeddings;
  double rms_norm_eps;
  int64_t head_dim;        // 0: hidden_size / num_attention_heads
  int64_t sliding_window;  // where the key is missing; 0: none
};
constexpr std::array<Family, 8> kFamilies = {{
    {"llama", "LlamaForCausalLM", 1e4, 2048, 1e-6, 0, 0},
    {"mistral", "MistralForCausalLM", 1e4, 131072, 1e-6, 0, 4096},
    {"qwen2", "Qwen2ForCausalLM", 1e6, 32768, 1e-6, 0, 4096},
    {"qwen3", "Qwen3ForCausalLM", 1e6, 32768, 1e-6, 128, 4096},
    {"mixtral", "MixtralForCausalLM", 1e6, 131072, 1e-5, 0, 0},
    {"qwen3_moe", "Qwen3MoeForCausalLM", 1e6, 32768, 1e-6, 0, 4096},
    {"qwen2_moe", "Qwen2MoeForCausalLM", 1e6, 32768, 1e-6, 0, 4096},
    {"graft_moe", "GraftMoeForCausalLM", 1e4, 2048, 1e-6, 0, 0},
}};

// Sizes above these are typing errors or attacks: nothing may be allocated from them.
constexpr int64_t kMaxLayers = 10'000, kMaxHeads = 1 << 16, kMaxWidth = int64_t{1} << 24, kMaxVocab = int64_t{1} << 28,
                  kMaxPositions = int64_t{1} << 40;

const Family* find_family(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

const Family& choose_family(const JsonFields& fields, std::string_view where,
                            std::span<const std::string_view> supported, ModelConfig& config) {
  config.architectures = fields.texts("architectures");
  config.model_type = fields.text("model_type", "");
  if (config.model_type.empty()) {
    for (const Family& family : kFamilies) {
      if (std::count(config.architectures.begin(), config.architectures.end(), family.architecture) > 0) {
        config.model_type = family.model_type;
      }
    }
  }
  const Family* family = find_family(config.model_type);
  const bool taken =
      family != nullptr && (supported.empty() || std::count(supported.begin(), supported.end(), config.model_type) > 0);
  if (!taken) {
    const std::string name = config.model_type.empty() ? "missing" : fmt::format("'{}'", printable(config.model_type));
    std::string architecture;
    if (!config.architectures.empty()) {
      architecture = fmt::format(" (architecture {})", printable(config.architectures[0]));
    }
    fail_hint("is it a decoder of one of these families, and the right folder?",
              "{}: model_type is {}{}, expected one of {}", where, name, architecture,
              fmt::join(supported.empty() ? known_model_types() : supported, ", "));
  }
  for (const Family& other : kFamilies) {
    if (&other != family &&
        std::count(config.architectures.begin(), config.architectures.end(), other.architecture) > 0) {
      fields.faults().add("architectures says {}, model_type {}", other.architecture, family->model_type);
    }
  }
  return *family;
}

void read_rope_scaling(const JsonFields& fields, const Json* object, ModelConfig& config) {
  RopeScaling& rope = config.rope_scaling;
  rope.original_max_position_embeddings = config.max_position_embeddings;
  if (object == nullptr) return;
  Faults& faults = fields.faults();
  const std::string prefix = fields.has("rope_parameters") ? "rope_parameters." : "rope_scaling.";
  const JsonFields scaling(*object, faults, prefix);
  const bool by_type = !scaling.has("rope_type");  // transformers before 4.43
  rope.type = scaling.text(by_type ? "type" : "rope_type",
                           scaling.has("factor") ? std::nullopt : std::optional<std::string>("default"));
  if (rope.type == "su") rope.type = "longrope";
  static constexpr std::array kTypes = {"default", "linear", "dynamic", "ntk", "llama3", "yarn", "longrope"};
  if (std::count(kTypes.begin(), kTypes.end(), rope.type) == 0) {
    faults.add("{}rope_type is '{}', expected one of {}", prefix, printable(rope.type), fmt::join(kTypes, ", "));
    return;
  }
  if (scaling.number(
          "partial_rotary_factor", 1.0, [](double x) { return x > 0 && x <= 1; }, "in (0, 1]") != 1.0) {
    faults.add("{}partial_rotary_factor other than 1 is not supported", prefix);
  }
  if (rope.type == "default") return;

  const bool longrope = rope.type == "longrope";
  if (longrope && fields.has("original_max_position_embeddings") && !scaling.has("original_max_position_embeddings")) {
    rope.original_max_position_embeddings =
        fields.whole("original_max_position_embeddings", std::nullopt, 1, kMaxPositions);
  } else {
    rope.original_max_position_embeddings =
        scaling.whole("original_max_position_embeddings",
                      longrope ? std::nullopt : std::optional(config.max_position_embeddings), 1, kMaxPositions);
  }
  const double stretch = static_cast<double>(config.max_position_embeddings) /
                         static_cast<double>(std::max<int64_t>(rope.original_max_position_embeddings, 1));
  rope.factor = scaling.positive("factor", longrope ? std::optional(stretch) : std::nullopt);
  if (rope.type == "llama3") {
    rope.low_freq_factor = scaling.positive("low_freq_factor", std::nullopt);
    rope.high_freq_factor = scaling.positive("high_freq_factor", std::nullopt);
    if (scaling.has("low_freq_factor") && scaling.has("high_freq_factor") &&
        !(rope.high_freq_factor > rope.low_freq_factor)) {
      faults.add("{}high_freq_factor is {}, expected more than low_freq_factor {}", prefix, rope.high_freq_factor,
                 rope.low_freq_factor);
    }
  }
  if (rope.type == "yarn" || longrope) {
    if (scaling.has("attention_factor")) rope.attention_factor = scaling.positive("attention_factor", 1.0);
    const auto any = [](double) { return true; };
    if (scaling.has("mscale")) rope.mscale = scaling.number("mscale", 1.0, any, "");
    if (scaling.has("mscale_all_dim")) rope.mscale_all_dim = scaling.number("mscale_all_dim", 1.0, any, "");
  }
  if (rope.type == "yarn") {
    rope.beta_fast = scaling.positive("beta_fast", 32.0);
    rope.beta_slow = scaling.positive("beta_slow", 1.0);
    rope.truncate = scaling.boolean("truncate", true);
    if (rope.beta_fast < rope.beta_slow) {
      faults.add("{}beta_fast is {}, expected at least beta_slow {}", prefix, rope.beta_fast, rope.beta_slow);
    }
  }
  if (longrope) {
    rope.short_factor = scaling.numbers("short_factor");
    rope.long_factor = scaling.numbers("long_factor");
    for (const auto& [key, list] :
         {std::pair{"short_factor", &rope.short_factor}, std::pair{"long_factor", &rope.long_factor}}) {
      const bool positive = std::all_of(list->begin(), list->end(), [](double x) { return x > 0; });
      if (static_cast<int64_t>(list->size()) != config.head_dim / 2 || !positive) {
        faults.add("{}{} has {} numbers, expected head_dim / 2 = {}, each > 0", prefix, key, list->size(),
                   config.head_dim / 2);
      }
    }
  }
}

void read_rope(const JsonFields& fields, const Family& family, std::string_view where, ModelConfig& config) {
  Faults& faults = fields.faults();
  const Json* object = fields.find("rope_parameters");
  const char* key = "rope_parameters";
  if (object == nullptr) object = fields.find("rope_scaling"), key = "rope_scaling";
  if (object != nullptr && !object->is_object()) {
    faults.add("{} is {}, expected an object", key, json_kind(*object));
    object = nullptr;
  }
  // transformers 5 may nest one object per layer type; these families use one for all layers.
  if (object != nullptr && object->contains("full_attention")) {
    const Json& full = (*object)["full_attention"];
    const auto sliding = object->find("sliding_attention");
    if (!full.is_object()) {
      faults.add("{}.full_attention is {}, expected an object", key, json_kind(full));
      object = nullptr;
    } else {
      if (sliding != object->end() && *sliding != full) {
        faults.add("{} differs between full_attention and sliding_attention, which is not supported", key);
      }
      object = &full;
    }
  }
  const Json none = Json::object();
  const JsonFields inside(object == nullptr ? none : *object, faults, std::string(key) + ".");
  if (inside.has("rope_theta")) {
    config.rope_theta = inside.positive("rope_theta", std::nullopt);
  } else if (fields.has("rope_theta")) {
    config.rope_theta = fields.positive("rope_theta", std::nullopt);
  } else {
    config.rope_theta = family.rope_theta;
    log_info("{}: rope_theta is missing, taking {}, the default of {}", where, family.rope_theta, family.model_type);
  }
  read_rope_scaling(fields, object, config);
}

// Which layers see only a window, by the rules of each family (spec of transformers' config and mask code).
void read_windows(const JsonFields& fields, const Family& family, std::string_view where, ModelConfig& config) {
  Faults& faults = fields.faults();
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  config.layer_windows.assign(layers, 0);
  if (family.model_type == "llama") return;  // its attention has no window, whatever the file says
  const Json* raw = config.raw.contains("sliding_window") ? &config.raw["sliding_window"] : nullptr;
  int64_t window = family.sliding_window;
  if (raw != nullptr) window = raw->is_null() ? 0 : fields.whole("sliding_window", std::nullopt, 1, kMaxPositions);
  const bool qwen = family.model_type.substr(0, 4) == "qwen";
  if (qwen && !fields.boolean("use_sliding_window", false)) window = 0;
  if (family.model_type == "mistral" && raw == nullptr) {
    log_info("{}: sliding_window is missing, taking {}, the default of mistral", where, window);
  }
  const int64_t first = qwen ? fields.whole("max_window_layers", 28, 0, INT64_MAX) : 0;
  const std::vector<std::string> types = fields.texts("layer_types");
  if (types.empty()) {
    for (size_t i = 0; i < layers; ++i) config.layer_windows[i] = static_cast<int64_t>(i) >= first ? window : 0;
    return;
  }
  if (types.size() != layers) {
    faults.add("layer_types has {} entries, expected num_hidden_layers = {}", types.size(), layers);
    return;
  }
  for (size_t i = 0; i < layers; ++i) {
    if (types[i] == "sliding_attention") {
      config.layer_windows[i] = window;
    } else if (types[i] != "full_attention") {
      faults.add("layer_types holds '{}', expected full_attention or sliding_attention", printable(types[i]));
      return;
    }
  }
}

void read_moe(const JsonFields& fields, const Family& family, ModelConfig& config) {
  const bool mixtral = family.model_type == "mixtral" || family.model_type == "graft_moe";
  if (!mixtral && family.model_type != "qwen3_moe" && family.model_type != "qwen2_moe") return;
  MoeConfig moe;
  const char* count = fields.has("num_local_experts") ? "num_local_experts"
                      : fields.has("num_experts")     ? "num_experts"
                      : mixtral                       ? "num_local_experts"
                                                      : "num_experts";
  moe.num_experts = fields.whole(count, std::nullopt, 1, 1 << 16);
  moe.num_experts_per_tok = fields.whole("num_experts_per_tok", std::nullopt, 1, 1 << 16);
  if (moe.num_experts_per_tok > moe.num_experts) {
    fields.faults().add("num_experts_per_tok is {}, expected at most {} = {}", moe.num_experts_per_tok, count,
                        moe.num_experts);
  }
  moe.moe_intermediate_size =
      mixtral ? config.intermediate_size : fields.whole("moe_intermediate_size", std::nullopt, 1, kMaxWidth);
  if (family.model_type == "graft_moe") {
    moe.shared_expert_intermediate_size = fields.whole("shared_expert_intermediate_size", 0, 0, kMaxWidth);
  } else if (family.model_type == "qwen2_moe") {
    moe.shared_expert_intermediate_size = fields.whole("shared_expert_intermediate_size", std::nullopt, 1, kMaxWidth);
  }
  moe.norm_topk_prob =
      family.model_type == "mixtral" || fields.boolean("norm_topk_prob", family.model_type == "graft_moe");
  const int64_t step = fields.whole("decoder_sparse_step", 1, 1, INT64_MAX);
  moe.sparse_layers.resize(static_cast<size_t>(config.num_hidden_layers));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    moe.sparse_layers[static_cast<size_t>(i)] = mixtral || (i + 1) % step == 0;
  }
  if (family.model_type != "mixtral") {
    for (const int64_t layer : fields.wholes("mlp_only_layers", 0, config.num_hidden_layers - 1)) {
      moe.sparse_layers[static_cast<size_t>(layer)] = false;
    }
  }
  const auto not_negative = [](double x) { return x >= 0; };
  const bool own = family.model_type == "graft_moe";  // adds its loss unless told not to (moe.md 2.8)
  moe.router_aux_loss_coef = fields.number("router_aux_loss_coef", own ? 0.01 : 0.001, not_negative, ">= 0");
  moe.router_z_loss_coef = fields.number("router_z_loss_coef", 0.0, not_negative, ">= 0");
  moe.output_router_logits = fields.boolean("output_router_logits", own);
  moe.capacity_factor = fields.number("capacity_factor", 0.0, not_negative, ">= 0");
  config.moe = moe;
}

// Token ids: a number or a list. One that no token can have is dropped with a warning: it can never be produced.
std::vector<int64_t> read_ids(const JsonFields& fields, std::string_view key, int64_t vocab_size,
                              std::string_view where) {
  std::vector<int64_t> ids = fields.wholes(key, INT32_MIN, INT32_MAX);
  std::erase_if(ids, [&](int64_t id) {
    const bool outside = id < 0 || (vocab_size > 0 && id >= vocab_size);
    if (outside && id != -1) {
      log_warning("{}: {} is {}, outside the vocabulary of {}; ignored", where, key, id, vocab_size);
    }
    return outside;
  });
  return ids;
}

std::optional<int64_t> read_id(const JsonFields& fields, std::string_view key, int64_t vocab_size,
                               std::string_view where) {
  const std::vector<int64_t> ids = read_ids(fields, key, vocab_size, where);
  return ids.empty() ? std::nullopt : std::optional(ids[0]);
}

std::optional<DType> read_dtype(const JsonFields& fields, std::string_view where) {
  const char* key = fields.has("dtype") ? "dtype" : "torch_dtype";
  std::string name = fields.text(key, "");
  if (name.substr(0, 6) == "torch.") name = name.substr(6);
  if (name.empty() || name == "auto") return std::nullopt;
  if (name == "float32" || name == "float") return DType::kF32;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16" || name == "half") return DType::kF16;
  if (name == "float64" || name == "double") return DType::kF64;
  log_warning("{}: {} is '{}', expected float32, bfloat16, float16 or float64; the weights' own types are used", where,
              key, printable(name));
  return std::nullopt;
}

}  // namespace

ExpertNames expert_names(const ModelConfig& config) {
  if (config.model_type == "mixtral") return {"block_sparse_moe", "w1", "w3", "w2"};
  return {"mlp", "gate_proj", "up_proj", "down_proj"};
}

std::span<const std::string_view> known_model_types() {
  static constexpr auto kNames = [] {
    std::array<std::string_view, kFamilies.size()> names{};
    for (size_t i = 0; i < names.size(); ++i) names[i] = kFamilies[i].model_type;
    return names;
  }();
  return kNames;
}

ModelConfig parse_model_config(const Json& json, std::string_view where, std::span<const std::string_view> supported) {
  GRAFT_CHECK(json.is_object(), "{}: is {}, expected an object", where, json_kind(json));
  Faults faults;
  const JsonFields fields(json, faults);
  ModelConfig config;
  config.where = where;
  config.raw = json;
  const Family& family = choose_family(fields, where, supported, config);

  const size_t before_vocab = faults.lines().size();
  config.vocab_size = fields.whole("vocab_size", std::nullopt, 1, kMaxVocab);
  const size_t before_width = faults.lines().size();
  const int64_t known_vocab = before_width == before_vocab ? config.vocab_size : 0;  // 0: ids are not judged by it
  config.hidden_size = fields.whole("hidden_size", std::nullopt, 1, kMaxWidth);
  const bool width_legal = faults.lines().size() == before_width;
  config.intermediate_size = fields.whole("intermediate_size", std::nullopt, 1, kMaxWidth);
  config.num_hidden_layers = fields.whole("num_hidden_layers", std::nullopt, 1, kMaxLayers);
  const size_t before_heads = faults.lines().size();
  config.num_attention_heads = fields.whole("num_attention_heads", std::nullopt, 1, kMaxHeads);
  config.num_key_value_heads = fields.whole("num_key_value_heads", config.num_attention_heads, 1, kMaxHeads);
  const bool heads_legal = faults.lines().size() == before_heads;
  if (heads_legal && config.num_attention_heads % config.num_key_value_heads != 0) {
    faults.add("num_key_value_heads is {}, expected a divisor of num_attention_heads = {}", config.num_key_value_heads,
               config.num_attention_heads);
  }
  const int64_t share = config.hidden_size / config.num_attention_heads;
  config.head_dim =
      fields.whole("head_dim", family.head_dim != 0 ? family.head_dim : std::max<int64_t>(share, 1), 1, 1 << 16);
  if (!fields.has("head_dim")) {
    if (family.head_dim != 0) {
      log_info("{}: head_dim is missing, taking {}, the default of {}", where, config.head_dim, family.model_type);
    }
    if (family.head_dim == 0 && heads_legal && width_legal && config.hidden_size % config.num_attention_heads != 0) {
      faults.add("num_attention_heads is {}, expected a divisor of hidden_size = {} where head_dim is missing",
                 config.num_attention_heads, config.hidden_size);
    } else if (heads_legal && width_legal && config.head_dim % 2 != 0) {
      faults.add("hidden_size / num_attention_heads is {}, expected an even head_dim: rotary embedding turns pairs",
                 config.head_dim);
    }
  } else if (config.head_dim % 2 != 0 && whole_number(*fields.find("head_dim")) == config.head_dim) {
    faults.add("head_dim is {}, expected an even number: rotary embedding turns pairs", config.head_dim);
  }
  config.max_position_embeddings =
      fields.whole("max_position_embeddings", family.max_position_embeddings, 1, kMaxPositions);
  if (!fields.has("max_position_embeddings")) {
    log_info("{}: max_position_embeddings is missing, taking {}, the default of {}", where,
             config.max_position_embeddings, family.model_type);
  }
  config.rms_norm_eps = fields.number(
      "rms_norm_eps", family.rms_norm_eps, [](double x) { return x > 0 && x < 1; }, "> 0 and < 1");
  read_rope(fields, family, where, config);
  config.rope_interleaved = family.model_type == "graft_moe" && fields.boolean("rope_interleaved", false);

  config.hidden_act = fields.text("hidden_act", "silu");
  if (config.hidden_act == "swish") config.hidden_act = "silu";
  if (config.hidden_act != "silu") faults.add("hidden_act is '{}', expected silu", printable(config.hidden_act));
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  const bool attention_bias = fields.boolean("attention_bias", false);
  const std::string& type = config.model_type;
  config.qkv_bias = type == "qwen2" || (type == "qwen2_moe" && fields.boolean("qkv_bias", true)) ||
                    ((type == "llama" || type == "qwen3" || type == "qwen3_moe") && attention_bias);
  config.o_bias = (type == "llama" || type == "qwen3" || type == "qwen3_moe") && attention_bias;
  config.mlp_bias = type == "llama" && fields.boolean("mlp_bias", false);
  config.qk_norm = type == "qwen3" || type == "qwen3_moe";
  read_windows(fields, family, where, config);
  read_moe(fields, family, config);

  config.bos_token_id = read_id(fields, "bos_token_id", known_vocab, where);
  config.pad_token_id = read_id(fields, "pad_token_id", known_vocab, where);
  config.eos_token_ids = read_ids(fields, "eos_token_id", known_vocab, where);
  config.initializer_range = fields.number(
      "initializer_range", 0.02, [](double x) { return x >= 0; }, ">= 0");
  config.torch_dtype = read_dtype(fields, where);
  if (const Json* quantization = fields.find("quantization_config")) {
    const std::string method = quantization->is_object() ? quantization->value("quant_method", Json("unnamed")).dump()
                                                         : json_kind(*quantization);
    faults.add("quantization_config ({}) is not supported: take the unquantised model", printable(method));
  }
  faults.throw_if_any(where, "correct the file, or download the model again");
  return config;
}

ModelConfig load_model_config(const std::string& folder, std::span<const std::string_view> supported) {
  GRAFT_CHECK_HINT(is_directory(folder), "give the folder that holds config.json and *.safetensors",
                   "{}: is not a folder", folder);
  const std::string path = folder + "/config.json";
  GRAFT_CHECK_HINT(path_exists(path), "give the folder of a model; an adapter is given with --adapter",
                   "{}: is missing, so this is not a model folder", path);
  return parse_model_config(read_json(path, {}, size_t{16} << 20), path, supported);
}

GenerationConfig parse_generation_config(const Json& json, std::string_view where) {
  GRAFT_CHECK(json.is_object(), "{}: is {}, expected an object", where, json_kind(json));
  Faults faults;
  const JsonFields fields(json, faults);
  GenerationConfig config;
  config.raw = json;
  config.bos_token_id = read_id(fields, "bos_token_id", 0, where);
  config.pad_token_id = read_id(fields, "pad_token_id", 0, where);
  config.eos_token_ids = read_ids(fields, "eos_token_id", 0, where);
  if (fields.has("do_sample")) config.do_sample = fields.boolean("do_sample", false);
  const auto not_negative = [](double x) { return x >= 0; };
  const auto share = [](double x) { return x >= 0 && x <= 1; };
  const auto any = [](double) { return true; };
  if (fields.has("temperature")) config.temperature = fields.number("temperature", 1.0, not_negative, ">= 0");
  if (fields.has("top_p")) config.top_p = fields.number("top_p", 1.0, share, "in [0, 1]");
  if (fields.has("min_p")) config.min_p = fields.number("min_p", 0.0, share, "in [0, 1]");
  if (fields.has("repetition_penalty")) config.repetition_penalty = fields.positive("repetition_penalty", 1.0);
  if (fields.has("frequency_penalty")) config.frequency_penalty = fields.number("frequency_penalty", 0.0, any, "");
  if (fields.has("presence_penalty")) config.presence_penalty = fields.number("presence_penalty", 0.0, any, "");
  if (fields.has("top_k")) config.top_k = fields.whole("top_k", 0, 0, INT32_MAX);
  if (fields.has("max_new_tokens")) config.max_new_tokens = fields.whole("max_new_tokens", 0, 1, INT64_MAX);
  if (fields.has("max_length")) config.max_length = fields.whole("max_length", 0, 1, INT64_MAX);
  faults.throw_if_any(where, "correct the file, or remove it");
  return config;
}

GenerationConfig load_generation_config(const std::string& folder) {
  const std::string path = folder + "/generation_config.json";
  if (!path_exists(path)) return {};
  return parse_generation_config(read_json(path, {}, size_t{16} << 20), path);
}

std::vector<int64_t> stop_token_ids(const ModelConfig& config, const GenerationConfig& generation) {
  std::vector<int64_t> ids = generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids;
  std::erase_if(ids, [&](int64_t id) { return id >= config.vocab_size; });
  return ids;
}

}  // namespace graft
