#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "graft/base/error.h"
#include "graft/base/json.h"

namespace graft {

// A value inside a JSON file together with its path, for errors such as
// "tokenizer.json: pre_tokenizer.pretokenizers[0].behavior is 'Sideways', expected …".
class JsonField {
 public:
  JsonField(const Json* value, std::string file, std::string path = {})
      : value_(value), file_(std::move(file)), path_(std::move(path)) {}

  const Json& value() const { return *value_; }
  const std::string& file() const { return file_; }
  const std::string& path() const { return path_; }
  std::string where() const { return path_.empty() ? file_ : file_ + ": " + path_; }

  // The member of an object; absent and null count as missing.
  std::optional<JsonField> find(std::string_view key) const {
    if (!value_->is_object()) fail("{} is {}, expected an object", label(), json_kind(*value_));
    for (const auto& [name, member] : value_->get_ref<const Json::object_t&>()) {
      if (name == key) {
        if (member.is_null()) return std::nullopt;
        return JsonField(&member, file_, path_.empty() ? std::string(key) : path_ + "." + std::string(key));
      }
    }
    return std::nullopt;
  }
  JsonField at(std::string_view key) const {
    auto found = find(key);
    if (!found) fail("{}: '{}' is missing", where(), key);
    return *found;
  }
  JsonField element(size_t i) const { return JsonField(&(*value_)[i], file_, fmt::format("{}[{}]", path_, i)); }
  size_t array_size() const {
    if (!value_->is_array()) fail("{} is {}, expected an array", label(), json_kind(*value_));
    return value_->size();
  }

  const std::string& as_string() const {
    if (!value_->is_string()) fail("{} is {}, expected a string", label(), json_kind(*value_));
    return value_->get_ref<const std::string&>();
  }
  bool as_bool() const {
    if (!value_->is_boolean()) fail("{} is {}, expected true or false", label(), json_kind(*value_));
    return value_->get<bool>();
  }
  int64_t as_integer(int64_t least, int64_t most) const {
    const bool fits = value_->is_number_unsigned() ? value_->get<uint64_t>() <= static_cast<uint64_t>(most) &&
                                                         static_cast<int64_t>(value_->get<uint64_t>()) >= least
                                                   : value_->is_number_integer() && value_->get<int64_t>() >= least &&
                                                         value_->get<int64_t>() <= most;
    if (!fits) fail("{} is {}, expected an integer from {} to {}", label(), json_kind(*value_), least, most);
    return value_->get<int64_t>();
  }

  std::string string_or(std::string_view key, std::string_view fallback) const {
    const auto found = find(key);
    return found ? found->as_string() : std::string(fallback);
  }
  bool bool_or(std::string_view key, bool fallback) const {
    const auto found = find(key);
    return found ? found->as_bool() : fallback;
  }
  std::string type() const { return at("type").as_string(); }

 private:
  std::string label() const { return path_.empty() ? file_ + ": the file" : file_ + ": " + path_; }

  const Json* value_;
  std::string file_, path_;
};

}  // namespace graft
