// Finds out what kind of adapter a path is, and which of its tensors does what, from JSON and headers.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/formats/adapter.h"
#include "graft/formats/json_fields.h"

namespace graft {
namespace {

constexpr char kPeftWeights[] = "adapter_model.safetensors", kPeftConfig[] = "adapter_config.json",
               kMlxWeights[] = "adapters.safetensors";
constexpr std::string_view kPeftPrefix = "base_model.model.";

enum class Part { kA, kB, kMagnitude, kEmbeddingA, kEmbeddingB, kBase, kOther };

struct Parsed {
  Part part = Part::kOther;
  std::string module;  // for kOther the whole name
  bool transposed = false;
};

bool take_suffix(std::string& name, std::string_view suffix) {
  if (name.size() <= suffix.size() || !std::string_view(name).ends_with(suffix)) return false;
  name.resize(name.size() - suffix.size());
  return true;
}

Parsed parse_name(std::string_view given) {
  std::string name(given);
  if (given.starts_with(kPeftPrefix)) name.erase(0, kPeftPrefix.size());
  struct Rule {
    std::string_view suffix;
    Part part;
    bool transposed;
  };
  // Some tools leave the adapter's name ("default") in the key, as PEFT has it in memory.
  static constexpr Rule kRules[] = {{".lora_A.weight", Part::kA, false},
                                    {".lora_A.default.weight", Part::kA, false},
                                    {".lora_B.weight", Part::kB, false},
                                    {".lora_B.default.weight", Part::kB, false},
                                    {".lora_magnitude_vector", Part::kMagnitude, false},
                                    {".lora_magnitude_vector.weight", Part::kMagnitude, false},
                                    {".lora_magnitude_vector.default.weight", Part::kMagnitude, false},
                                    {".lora_embedding_A", Part::kEmbeddingA, false},
                                    {".lora_embedding_B", Part::kEmbeddingB, false},
                                    {".base_layer.weight", Part::kBase, false},
                                    {".lora_a", Part::kA, true},
                                    {".lora_b", Part::kB, true},
                                    {".m", Part::kMagnitude, true}};
  for (const Rule& rule : kRules) {
    if (take_suffix(name, rule.suffix)) return {rule.part, name, rule.transposed};
  }
  // Older PEFT stored modules_to_save under their place in memory.
  for (const std::string_view wrapper : {".modules_to_save.default.", ".modules_to_save."}) {
    const size_t at = name.find(wrapper);
    if (at != std::string::npos) {
      name.erase(at, wrapper.size() - 1);
      break;
    }
  }
  return {Part::kOther, name, false};
}

// layers.3.q_proj -> model.layers.3.self_attn.q_proj
std::string full_path(const std::string& module) {
  std::string path = module.starts_with("model.") ? module : fmt::format("model.{}", module);
  const size_t dot = path.rfind('.');
  const std::string last = path.substr(dot + 1), before = path.substr(0, dot);
  const bool bare =
      before.find_first_not_of("0123456789", before.rfind('.') + 1) == std::string::npos;  // "model.layers.3"
  if (!bare) return path;
  if (last == "q_proj" || last == "k_proj" || last == "v_proj" || last == "o_proj") {
    return before + ".self_attn." + last;
  }
  if (last == "gate_proj" || last == "up_proj" || last == "down_proj") return before + ".mlp." + last;
  return path;
}

int64_t layer_number(std::string_view path) {
  const size_t at = path.find("layers.");
  if (at == std::string_view::npos) return -1;
  int64_t layer = 0;
  size_t i = at + 7, digits = 0;
  for (; i < path.size() && path[i] >= '0' && path[i] <= '9' && digits < 9; ++i, ++digits) {
    layer = layer * 10 + (path[i] - '0');
  }
  return digits > 0 && i < path.size() && path[i] == '.' ? layer : -1;
}

// Targets by what is there: short names and layers where the modules are all of them, else whole paths.
void targets_from_tensors(AdapterHeader& header) {
  std::set<std::string> suffixes;
  std::set<int64_t> layers;
  bool regular = true;
  for (const auto& entry : header.entries) {
    const int64_t layer = layer_number(entry.module);
    regular = regular && layer >= 0;
    layers.insert(layer);
    suffixes.insert(entry.module.substr(entry.module.rfind('.') + 1));
  }
  LoraConfig& config = header.config;
  config.target_modules = {};
  config.layers_to_transform.clear();
  if (regular && suffixes.size() * layers.size() == header.entries.size()) {
    config.target_modules.names.assign(suffixes.begin(), suffixes.end());
    config.layers_to_transform.assign(layers.begin(), layers.end());
  } else {
    for (const auto& entry : header.entries) config.target_modules.names.push_back(entry.module);
  }
}

int64_t rank_of(const AdapterHeader::Entry& entry, AdapterLayout layout) {
  if (entry.a == nullptr || entry.a->shape.size() != 2) return 0;
  return entry.a->shape[layout == AdapterLayout::kPeft ? 0 : 1];
}

// The rank that most modules have, and a pattern for the others.
void ranks_from_tensors(AdapterHeader& header) {
  std::map<int64_t, int64_t> votes;
  for (const auto& entry : header.entries) ++votes[rank_of(entry, header.layout)];
  int64_t most = 0;
  for (const auto& [rank, count] : votes) {
    if (count > most && rank > 0) most = count, header.config.rank = rank;
  }
}

// mlx-lm: {"fine_tune_type", "num_layers", "lora_parameters": {"rank", "scale", "dropout", "keys"}}.
void read_mlx_config(const Json& json, const std::string& where, AdapterHeader& header) {
  Faults faults;
  const JsonFields fields(json, faults);
  const std::string type = fields.text("fine_tune_type", "lora");
  if (type != "lora" && type != "dora") faults.add("fine_tune_type is '{}', expected lora or dora", printable(type));
  header.config.use_dora = type == "dora";
  const Json* parameters = fields.find("lora_parameters");
  const Json none = Json::object();
  if (parameters == nullptr) faults.add("lora_parameters is missing");
  const JsonFields lora(parameters == nullptr ? none : *parameters, faults, "lora_parameters.");
  if (parameters != nullptr) {
    header.config.rank = lora.whole("rank", 8, 1, 1 << 20);
    const double scale = lora.positive("scale", 20.0);                      // mlx-lm's default
    header.config.alpha = scale * static_cast<double>(header.config.rank);  // so that alpha / rank is the scale
    header.config.dropout = lora.number(
        "dropout", 0.0, [](double x) { return x >= 0 && x < 1; }, "in [0, 1)");
  }
  faults.throw_if_any(where);
  header.has_config = true;
}

// The file of tensors that a path means.
std::string find_weights(const std::string& path) {
  if (!is_directory(path)) {
    GRAFT_CHECK_HINT(path_exists(path), "check the path", "{}: there is no such adapter (a folder or a .safetensors)",
                     path);
    GRAFT_CHECK_HINT(path.ends_with(".safetensors"), "graft reads adapters from safetensors and never unpickles",
                     "{}: is not a .safetensors, expected an adapter", path);
    return path;
  }
  for (const char* name : {kPeftWeights, kMlxWeights}) {
    if (path_exists(path + "/" + name)) return path + "/" + name;
  }
  for (const char* pickle : {"adapter_model.bin", "adapter_model.pt", "adapters.npz"}) {
    GRAFT_CHECK_HINT(!path_exists(path + "/" + pickle),
                     "a pickle can run any code, so graft never reads one: save the adapter as safetensors "
                     "(PEFT: model.save_pretrained(folder, safe_serialization=True))",
                     "{}/{}: is not safetensors, expected {}", path, pickle, kPeftWeights);
  }
  const bool model = path_exists(path + "/config.json") && !path_exists(path + "/" + kPeftConfig);
  fail_hint(model ? "this is a model's folder; an adapter's holds adapter_config.json and adapter_model.safetensors"
                  : "download the adapter's weights into the folder",
            "{}/{}: is missing", path, kPeftWeights);
}

}  // namespace

bool natural_less(std::string_view a, std::string_view b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      size_t end_a = i, end_b = j;
      while (end_a < a.size() && digit(a[end_a])) ++end_a;
      while (end_b < b.size() && digit(b[end_b])) ++end_b;
      while (i + 1 < end_a && a[i] == '0') ++i;
      while (j + 1 < end_b && b[j] == '0') ++j;
      if (end_a - i != end_b - j) return end_a - i < end_b - j;
      const int order = a.substr(i, end_a - i).compare(b.substr(j, end_b - j));
      if (order != 0) return order < 0;
      i = end_a, j = end_b;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
    }
  }
  if ((i < a.size()) != (j < b.size())) return j < b.size();
  return a < b;  // equal but for leading zeros: still a strict order
}

AdapterHeader read_adapter_header(const std::string& path) {
  AdapterHeader header;
  header.path = find_weights(path);
  const std::string folder = is_directory(path) ? path : std::filesystem::path(path).parent_path().string();
  const std::string config_path = folder.empty() ? kPeftConfig : folder + "/" + kPeftConfig;

  Json config;
  if (path_exists(config_path)) {
    config = read_json(config_path, {}, size_t{16} << 20);
    GRAFT_CHECK(config.is_object(), "{}: is {}, expected an object", config_path, json_kind(config));
  } else if (is_directory(path)) {
    fail_hint("it says rank, alpha and targets; without it the adapter's scale is unknown", "{}: is missing",
              config_path);
  }
  const bool mlx_config = config.is_object() && !config.contains("peft_type") &&
                          (config.contains("lora_parameters") || config.contains("fine_tune_type"));
  if (mlx_config) {
    read_mlx_config(config, config_path, header);
  } else if (config.is_object()) {
    header.config = parse_lora_config(config, config_path);
    header.has_config = true;
  }

  header.file = read_safetensors_header(header.path);
  size_t transposed = 0, layers = 0, parts = 0;
  std::map<std::string, AdapterHeader::Entry> entries;
  Faults faults;
  for (const TensorInfo& info : header.file.tensors) {
    Parsed parsed = parse_name(info.name);
    if (parsed.part == Part::kOther) {
      const size_t dot = parsed.module.rfind('.');
      const std::string owner = parsed.module.substr(0, dot == std::string::npos ? 0 : dot);
      if (saves_module(header.config.modules_to_save, owner)) {
        header.saved.push_back({parsed.module, &info, true});
      } else if (parsed.module.ends_with("trainable_tokens_delta")) {
        faults.add("tensor '{}': trained tokens (trainable_token_indices) are not supported",
                   printable(info.name, 200));
      } else {
        header.foreign.push_back(info.name);
      }
      continue;
    }
    if (parsed.part == Part::kBase) {
      header.saved.push_back({parsed.module + ".weight", &info, false});
      continue;
    }
    ++parts;
    transposed += parsed.transposed;
    if (parsed.transposed && parsed.module.starts_with("layers.")) ++layers, parsed.module = full_path(parsed.module);
    AdapterHeader::Entry& entry = entries[parsed.module];
    entry.module = parsed.module;
    const bool embedding = parsed.part == Part::kEmbeddingA || parsed.part == Part::kEmbeddingB;
    entry.embedding = entry.embedding || embedding;
    const TensorInfo*& slot = parsed.part == Part::kMagnitude                               ? entry.magnitude
                              : parsed.part == Part::kA || parsed.part == Part::kEmbeddingA ? entry.a
                                                                                            : entry.b;
    if (slot != nullptr) {
      faults.add("tensors '{}' and '{}' mean the same", printable(slot->name, 200), printable(info.name, 200));
    }
    slot = &info;
  }
  faults.throw_if_any(header.path);
  GRAFT_CHECK_HINT(parts > 0 || !header.saved.empty(), "is it a model's file rather than an adapter's?",
                   "{}: holds no LoRA tensor (lora_A, lora_B){}", header.path,
                   header.foreign.empty() ? "" : fmt::format(", but '{}'", printable(header.foreign[0], 200)));
  GRAFT_CHECK(transposed == 0 || transposed == parts,
              "{}: mixes tensors named as PEFT's (lora_A.weight) and as mlx-lm's (lora_a)", header.path);
  header.layout = transposed == 0 ? AdapterLayout::kPeft : layers > 0 ? AdapterLayout::kLayers : AdapterLayout::kMlx;

  for (auto& [module, entry] : entries) header.entries.push_back(std::move(entry));
  std::sort(header.entries.begin(), header.entries.end(),
            [](const auto& a, const auto& b) { return natural_less(a.module, b.module); });
  std::sort(header.saved.begin(), header.saved.end(),
            [](const auto& a, const auto& b) { return natural_less(a.name, b.name); });
  if (!header.has_config) {
    ranks_from_tensors(header);
    header.config.alpha = 2.0 * static_cast<double>(header.config.rank);
    header.config.use_dora =
        std::any_of(header.entries.begin(), header.entries.end(), [](const auto& e) { return e.magnitude != nullptr; });
    log_warning("{}: has no adapter_config.json beside it, so its scale is unknown; taking alpha = 2 * rank (scale 2)",
                header.path);
  }
  if (header.config.target_modules.empty()) {
    if (header.has_config && !mlx_config) {
      log_warning("{}: target_modules is missing; taking the modules that {} holds", config_path, header.path);
    }
    targets_from_tensors(header);
  }
  return header;
}

}  // namespace graft
