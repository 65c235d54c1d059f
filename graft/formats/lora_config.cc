#include "graft/formats/lora_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/base/strings.h"
#include "graft/formats/json_fields.h"
#include "graft/formats/module_regex.h"

namespace graft {
namespace {

constexpr int64_t kMaxRank = 1 << 20;
constexpr std::string_view kAlphaRange = "> 0 that a 32-bit float holds";  // beyond, the update would be infinite

bool valid_alpha(double alpha) { return alpha > 0 && alpha <= static_cast<double>(std::numeric_limits<float>::max()); }

bool ends_with_name(std::string_view path, std::string_view name) {
  return path == name ||
         (path.size() > name.size() && path.ends_with(name) && path[path.size() - name.size() - 1] == '.');
}

std::string_view last_part(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

// "did you mean q_proj?", or all names there are.
std::string suggestion(std::string_view wrong, std::span<const BaseModule> modules) {
  std::set<std::string_view> names;
  for (const BaseModule& module : modules) names.insert(last_part(module.path));
  std::vector<std::string_view> close;
  for (const std::string_view name : names) {
    if (!wrong.empty() && wrong.size() <= 64 && edit_distance(last_part(wrong), name) <= 2) close.push_back(name);
  }
  if (!close.empty()) return fmt::format("did you mean {}?", fmt::join(close, " or "));
  return fmt::format("the model has {}", fmt::join(names, ", "));
}

// A pattern with its regular expression compiled.
class Matcher {
 public:
  Matcher(const ModulePattern& pattern, std::string_view where) : pattern_(pattern) {
    if (!pattern.regex.empty()) regex_.emplace(pattern.regex, where);
  }
  bool whole_name(std::string_view path) const {
    return std::find(pattern_.names.begin(), pattern_.names.end(), path) != pattern_.names.end();
  }
  bool matches(const BaseModule& module) const {
    if (regex_) return regex_->full_match(module.path);
    if (pattern_.all_linear) return module.kind == ModuleKind::kLinear || module.kind == ModuleKind::kExpert;
    return names_module(pattern_.names, module.path);
  }

 private:
  const ModulePattern& pattern_;
  std::optional<ModuleRegex> regex_;
};

// The number of a module's layer: after the first "NAME.", where NAME is of layers_pattern if given. -1: none.
// PEFT takes the last number of the path, which for an expert is not its layer; for every other module it is the same.
int64_t layer_of(std::string_view path, const std::vector<ModuleRegex>& patterns) {
  for (const ModuleRegex& pattern : patterns) {
    const std::string digits = pattern.first_group(path);
    if (!digits.empty() && digits.size() <= 9) return std::stoll(digits);
  }
  return -1;
}

template <typename Value>
std::optional<size_t> first_match(const std::vector<std::pair<ModuleRegex, Value>>& patterns, std::string_view path) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (patterns[i].first.full_match(path)) return i;
  }
  return std::nullopt;
}

template <typename Value>
std::vector<std::pair<ModuleRegex, Value>> compile(const std::vector<std::pair<std::string, Value>>& pattern,
                                                   std::string_view where, const char* field) {
  std::vector<std::pair<ModuleRegex, Value>> compiled;
  for (const auto& [key, value] : pattern) {
    compiled.emplace_back(ModuleRegex("(?:.*\\.)?(?:" + key + ")", fmt::format("{}: {}", where, field)), value);
  }
  return compiled;
}

ModulePattern read_pattern(const JsonFields& fields, const char* key) {
  ModulePattern pattern;
  const Json* value = fields.find(key);
  if (value == nullptr) return pattern;
  if (value->is_string()) {
    const std::string text = value->get<std::string>();
    if (text == "all-linear") {
      pattern.all_linear = true;
    } else {
      pattern.regex = text;
    }
    return pattern;
  }
  pattern.names = fields.texts(key);
  return pattern;
}

bool is_set(const Json& value) {  // Python's truth
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

Json number_json(double x) {
  return x == std::floor(x) && std::abs(x) < 1e15 ? Json(static_cast<int64_t>(x)) : Json(x);
}

Json pattern_json(const ModulePattern& pattern) {
  if (pattern.all_linear) return "all-linear";
  if (!pattern.regex.empty()) return pattern.regex;
  return pattern.names.empty() ? Json() : Json(pattern.names);
}

}  // namespace

bool names_module(std::span<const std::string> names, std::string_view path) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return ends_with_name(path, name); });
}

bool saves_module(std::span<const std::string> names, std::string_view path) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return path.ends_with(name); });
}

ModulePattern parse_module_pattern(std::string_view text) {
  ModulePattern pattern;
  if (text == "all-linear") {
    pattern.all_linear = true;
    return pattern;
  }
  const bool regex =
      text.find_first_of("()[]{}|\\^$+") != std::string_view::npos || text.find(".*") != std::string_view::npos;
  if (regex) {
    pattern.regex = text;
    return pattern;
  }
  std::string globs;
  bool any_glob = false;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view name = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (name.empty()) continue;
    pattern.names.emplace_back(name);
    if (!globs.empty()) globs += '|';
    for (const char c : name) {
      any_glob = any_glob || c == '*' || c == '?';
      globs += c == '*' ? "[^.]*" : c == '?' ? "[^.]" : c == '.' ? "\\." : std::string(1, c);
    }
  }
  if (any_glob) {
    pattern.names.clear();
    pattern.regex = "(.*\\.)?(" + globs + ")";
  }
  return pattern;
}

double LoraConfig::scaling(int64_t module_rank, double module_alpha) const {
  return module_alpha / (use_rslora ? std::sqrt(static_cast<double>(module_rank)) : static_cast<double>(module_rank));
}

void LoraConfig::validate(std::string_view where) const {
  Faults faults;
  if (rank < 1 || rank > kMaxRank) faults.add("rank r is {}, expected 1 to {}", rank, kMaxRank);
  if (!valid_alpha(alpha)) faults.add("lora_alpha is {}, expected a number {}", alpha, kAlphaRange);
  if (!(dropout >= 0 && dropout < 1)) faults.add("lora_dropout is {}, expected in [0, 1)", dropout);
  for (const auto& [key, value] : rank_pattern) {
    if (value < 1 || value > kMaxRank) {
      faults.add("rank_pattern '{}' is {}, expected 1 to {}", printable(key), value, kMaxRank);
    }
  }
  for (const auto& [key, value] : alpha_pattern) {
    if (!valid_alpha(value)) {
      faults.add("alpha_pattern '{}' is {}, expected a number {}", printable(key), value, kAlphaRange);
    }
  }
  for (const int64_t layer : layers_to_transform) {
    if (layer < 0) faults.add("layers_to_transform holds {}, expected layers from 0", layer);
  }
  if (!layers_to_transform.empty() && !target_modules.regex.empty()) {
    faults.add(
        "layers_to_transform goes with target_modules as a list, not with a regular expression, which can name the "
        "layers itself");
  }
  if (!layers_pattern.empty() && layers_to_transform.empty()) {
    faults.add("layers_pattern is given without layers_to_transform");
  }
  if (exclude_modules.all_linear) faults.add("exclude_modules is all-linear, expected names or a regular expression");
  const auto try_compile = [&](const std::string& text, const char* field) {
    try {
      const ModuleRegex compiled(text, field);
    } catch (const Error& e) {
      faults.add_line(e.what());
    }
  };
  if (!target_modules.regex.empty()) try_compile(target_modules.regex, "target_modules");
  if (!exclude_modules.regex.empty()) try_compile(exclude_modules.regex, "exclude_modules");
  for (const auto& [key, value] : rank_pattern) try_compile("(?:.*\\.)?(?:" + key + ")", "rank_pattern");
  for (const auto& [key, value] : alpha_pattern) try_compile("(?:.*\\.)?(?:" + key + ")", "alpha_pattern");
  for (const std::string& name : layers_pattern)
    try_compile("(?:.*?\\.)?(?:" + name + ")\\.(\\d+)\\.", "layers_pattern");
  faults.throw_if_any(where);
}

LoraConfig parse_lora_config(const Json& json, std::string_view where) {
  GRAFT_CHECK(json.is_object(), "{}: is {}, expected an object", where, json_kind(json));
  Faults faults;
  const JsonFields fields(json, faults);
  LoraConfig config;
  const std::string type = fields.text("peft_type", std::nullopt);
  if (fields.has("peft_type") && type != "LORA") {
    fail_hint("graft reads LoRA adapters (with rsLoRA and DoRA)", "{}: peft_type is '{}', expected LORA", where,
              printable(type));
  }
  config.rank = fields.whole("r", 8, 1, kMaxRank);
  config.alpha = fields.number("lora_alpha", 8.0, valid_alpha, kAlphaRange);  // PEFT's defaults
  config.dropout = fields.number(
      "lora_dropout", 0.0, [](double x) { return x >= 0 && x < 1; }, "in [0, 1)");
  config.use_rslora = fields.boolean("use_rslora", false);
  config.use_dora = fields.boolean("use_dora", false);
  config.target_modules = read_pattern(fields, "target_modules");
  config.exclude_modules = read_pattern(fields, "exclude_modules");
  config.layers_to_transform = fields.wholes("layers_to_transform", 0, 1 << 20);
  config.layers_pattern = fields.texts("layers_pattern");
  config.modules_to_save = fields.texts("modules_to_save");
  config.base_model_name_or_path = fields.text("base_model_name_or_path", "");
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    const Json* pattern = fields.find(key);
    if (pattern == nullptr) continue;
    if (!pattern->is_object()) {
      faults.add("{} is {}, expected an object", key, printable(json_kind(*pattern)));
      continue;
    }
    const JsonFields inside(*pattern, faults, std::string(key) + ".");
    for (const auto& [name, value] : pattern->items()) {
      if (std::string_view(key) == "rank_pattern") {
        config.rank_pattern.emplace_back(name, inside.whole(name, std::nullopt, 1, kMaxRank));
      } else {
        config.alpha_pattern.emplace_back(name, inside.number(name, std::nullopt, valid_alpha, kAlphaRange));
      }
    }
  }
  if (const std::string bias = fields.text("bias", "none"); bias != "none") {
    const bool known = bias == "all" || bias == "lora_only";
    faults.add("bias is '{}', {}", printable(bias), known ? "which is not supported: expected none" : "expected none");
  }
  for (const char* key : {"layer_replication", "alora_invocation_tokens", "arrow_config", "trainable_token_indices",
                          "target_parameters", "lora_bias", "use_qalora", "use_bdlora", "kasa_config",
                          "monteclora_config", "megatron_config", "velora_config"}) {
    const Json* value = fields.find(key);
    if (value != nullptr && is_set(*value)) {
      faults.add("{} is {}, which is not supported", key, printable(json_kind(*value)));
    }
  }
  if (const Json* init = fields.find("init_lora_weights"); init != nullptr && init->is_string()) {
    const std::string name = init->get<std::string>();
    for (const char* changed : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
      if (name.starts_with(changed)) {
        faults.add(
            "init_lora_weights is '{}': this start changes the base's weights, so the adapter does not fit the "
            "original base "
            "(save it with path_initial_model_for_weight_conversion)",
            printable(name));
      }
    }
  }
  faults.throw_if_any(where, "correct the adapter's config, or save the adapter again with what is supported");
  config.validate(where);
  return config;
}

Json lora_config_json(const LoraConfig& config) {
  Json ranks = Json::object(), alphas = Json::object();
  for (const auto& [key, value] : config.rank_pattern) ranks[key] = value;
  for (const auto& [key, value] : config.alpha_pattern) alphas[key] = number_json(value);
  nlohmann::json sorted = {{"base_model_name_or_path", config.base_model_name_or_path},
                           {"bias", "none"},
                           {"fan_in_fan_out", false},
                           {"inference_mode", true},
                           {"init_lora_weights", true},
                           {"lora_dropout", config.dropout},
                           {"peft_type", "LORA"},
                           {"r", config.rank},
                           {"task_type", "CAUSAL_LM"},
                           {"use_dora", config.use_dora},
                           {"use_rslora", config.use_rslora}};
  Json json = Json::object();
  for (const auto& [key, value] : sorted.items()) json[key] = value;
  json["alpha_pattern"] = alphas;
  json["lora_alpha"] = number_json(config.alpha);
  json["modules_to_save"] = config.modules_to_save.empty() ? Json() : Json(config.modules_to_save);
  json["rank_pattern"] = ranks;
  json["target_modules"] = pattern_json(config.target_modules);
  if (!config.exclude_modules.empty()) json["exclude_modules"] = pattern_json(config.exclude_modules);
  if (!config.layers_to_transform.empty()) json["layers_to_transform"] = config.layers_to_transform;
  if (!config.layers_pattern.empty()) json["layers_pattern"] = config.layers_pattern;
  // Sorted keys, but patterns keep their order: the first key that matches counts.
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  Json in_order = Json::object();
  for (const std::string& key : keys) in_order[key] = json[key];
  return in_order;
}

std::vector<LoraTarget> resolve_targets(const LoraConfig& config, std::span<const BaseModule> modules,
                                        std::string_view where, bool training) {
  config.validate(where);
  GRAFT_CHECK(!config.target_modules.empty(),
              "{}: target_modules is empty, expected names, a regular expression or all-linear", where);
  Faults faults;
  const Matcher wanted(config.target_modules, fmt::format("{}: target_modules", where));
  const Matcher excluded(config.exclude_modules, fmt::format("{}: exclude_modules", where));
  std::vector<ModuleRegex> layer_patterns;
  const std::string in_layers = fmt::format("{}: layers_pattern", where);
  for (const std::string& name : config.layers_pattern) {
    layer_patterns.emplace_back("(?:.*?\\.)?(?:" + name + ")\\.(\\d+)\\.", in_layers);
  }
  if (layer_patterns.empty()) layer_patterns.emplace_back(".*?\\.[^.]*\\.(\\d+)\\.", in_layers);
  const auto ranks = compile(config.rank_pattern, where, "rank_pattern");
  const auto alphas = compile(config.alpha_pattern, where, "alpha_pattern");

  std::vector<LoraTarget> targets;
  std::set<int64_t> layers_found;
  std::set<size_t> ranks_used, alphas_used;
  for (const BaseModule& module : modules) {
    const int64_t layer = config.layers_to_transform.empty() ? -1 : layer_of(module.path, layer_patterns);
    if (layer >= 0) layers_found.insert(layer);
    if (!config.exclude_modules.empty() && excluded.matches(module)) continue;
    if (names_module(config.modules_to_save, module.path)) continue;  // trained in full, so never adapted
    if (!wanted.matches(module)) continue;
    if (!config.layers_to_transform.empty() && !wanted.whole_name(module.path) &&
        std::count(config.layers_to_transform.begin(), config.layers_to_transform.end(), layer) == 0) {
      continue;
    }
    LoraTarget target{module, config.rank, config.alpha, 0};
    if (const auto i = first_match(ranks, module.path)) target.rank = ranks[*i].second, ranks_used.insert(*i);
    if (const auto i = first_match(alphas, module.path)) target.alpha = alphas[*i].second, alphas_used.insert(*i);
    target.scaling = config.scaling(target.rank, target.alpha);
    if (training && target.rank > std::min(module.in, module.out)) {
      faults.add("rank {} of '{}' is more than min(in {}, out {})", target.rank, module.path, module.in, module.out);
    }
    targets.push_back(std::move(target));
  }

  // Files made elsewhere name modules and layers that this model does not have, and PEFT passes over them; with nothing left they are the fault.
  const bool strict = training || targets.empty();
  const auto missing = [&](const std::string& fault) {
    if (strict) {
      faults.add_line(fault);
    } else {
      log_warning("{}: {}; passed over", where, fault);
    }
  };
  for (const std::string& name : config.target_modules.names) {
    if (std::none_of(modules.begin(), modules.end(),
                     [&](const BaseModule& m) { return ends_with_name(m.path, name); })) {
      missing(fmt::format("target_modules: '{}' is not in the model; {}", printable(name), suggestion(name, modules)));
    }
  }
  for (const std::string& name : config.exclude_modules.names) {
    if (training && std::none_of(modules.begin(), modules.end(),
                                 [&](const BaseModule& m) { return ends_with_name(m.path, name); })) {
      faults.add("exclude_modules: '{}' is not in the model; {}", printable(name), suggestion(name, modules));
    }
  }
  for (const int64_t layer : config.layers_to_transform) {
    if (layers_found.count(layer) == 0) {
      missing(fmt::format("layers_to_transform: layer {} is not in the model{}", layer,
                          layers_found.empty() ? ""
                                               : fmt::format(", which has layers {} to {}", *layers_found.begin(),
                                                             *layers_found.rbegin())));
    }
  }
  for (size_t i = 0; training && i < ranks.size(); ++i) {
    if (ranks_used.count(i) == 0) {
      faults.add("rank_pattern: '{}' matches no target", printable(config.rank_pattern[i].first));
    }
  }
  for (size_t i = 0; training && i < alphas.size(); ++i) {
    if (alphas_used.count(i) == 0) {
      faults.add("alpha_pattern: '{}' matches no target", printable(config.alpha_pattern[i].first));
    }
  }
  if (targets.empty() && faults.empty()) {
    faults.add("target_modules {} matches no module{}; {}", printable(pattern_json(config.target_modules).dump()),
               config.exclude_modules.empty() ? "" : " that is not excluded", suggestion("", modules));
  }
  faults.throw_if_any(
      where, "correct names and ranks as said above; `graft inspect` on the model shows its modules and their sizes");
  return targets;
}

}  // namespace graft
