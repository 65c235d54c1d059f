#include "graft/text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "graft/base/file.h"

namespace graft {
namespace {

// "…", {"content": "…"} or null.
std::optional<std::string> read_token(const JsonField& root, std::string_view key) {
  const auto field = root.find(key);
  if (!field) return std::nullopt;
  if (field->value().is_object()) return field->at("content").as_string();
  if (!field->value().is_string()) {
    fail("{} is {}, expected a string or an object with 'content'", field->where(), json_kind(field->value()));
  }
  return field->as_string();
}

void read_tokens(const JsonField& root, TokenizerConfig& config) {
  for (const auto& [key, member] : {std::pair{"bos_token", &config.bos_token},
                                    {"eos_token", &config.eos_token},
                                    {"pad_token", &config.pad_token},
                                    {"unk_token", &config.unk_token},
                                    {"cls_token", &config.cls_token},
                                    {"sep_token", &config.sep_token},
                                    {"mask_token", &config.mask_token}}) {
    if (*member) continue;
    *member = read_token(root, key);
    if (*member) config.tokens.emplace(key, **member);
  }
}

void read_chat_template(const JsonField& root, TokenizerConfig& config) {
  const auto field = root.find("chat_template");
  if (!field) return;
  if (field->value().is_array()) {
    for (size_t i = 0; i < field->array_size(); ++i) {
      field->element(i).at("name").as_string();
      field->element(i).at("template").as_string();
    }
  } else if (!field->value().is_string()) {
    fail("{} is {}, expected a string or an array of {{name, template}}", field->where(), json_kind(field->value()));
  }
  config.chat_template = field->value();
}

void read_added_tokens(const JsonField& root, TokenizerConfig& config) {
  const auto field = root.find("added_tokens_decoder");
  if (!field) return;
  if (!field->value().is_object()) fail("{} is {}, expected an object", field->where(), json_kind(field->value()));
  for (const auto& [key, value] : field->value().get_ref<const Json::object_t&>()) {
    AddedToken token =
        AddedToken::from_json(JsonField(&value, field->file(), field->path() + "." + printable(key, 20)));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0) {
      fail("{} has the key '{}', expected token ids", field->where(), printable(key));
    }
    config.added_tokens.push_back(std::move(token));
  }
  std::sort(config.added_tokens.begin(), config.added_tokens.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
}

}  // namespace

TokenizerConfig parse_tokenizer_config(const Json& json, const std::string& where) {
  const JsonField root(&json, where);
  TokenizerConfig config;
  read_tokens(root, config);
  const auto flag = [&](std::string_view key) -> std::optional<bool> {
    const auto field = root.find(key);
    return field ? std::optional<bool>(field->as_bool()) : std::nullopt;
  };
  config.add_bos_token = flag("add_bos_token");
  config.add_eos_token = flag("add_eos_token");
  config.add_prefix_space = flag("add_prefix_space");
  if (const auto name = root.find("tokenizer_class")) config.tokenizer_class = name->as_string();
  if (const auto length = root.find("model_max_length")) {
    if (!length->value().is_number()) fail("{} is {}, expected a number", length->where(), json_kind(length->value()));
    const double value = length->value().get<double>();
    if (value >= 1 && value < 1e15) config.model_max_length = static_cast<int64_t>(value);
  }
  read_chat_template(root, config);
  read_added_tokens(root, config);
  return config;
}

TokenizerConfig load_tokenizer_config(const std::string& folder) {
  TokenizerConfig config;
  if (const std::string path = folder + "/tokenizer_config.json"; path_exists(path)) {
    config = parse_tokenizer_config(read_json(path, {}, size_t{64} << 20), path);
  }
  if (const std::string path = folder + "/special_tokens_map.json"; path_exists(path)) {
    const Json map = read_json(path, {}, size_t{64} << 20);
    read_tokens(JsonField(&map, path), config);
  }
  return config;
}

}  // namespace graft
