#include "graft/base/json.h"

#include <unordered_set>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/file.h"

namespace graft {
namespace {

// Builds the value while checking what nlohmann's own builder does not: depth and duplicate keys.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, std::string_view where, const JsonLimits& limits)
      : text_(text), where_(where), limits_(limits) {}

  bool null() override { return put(Json()); }
  bool boolean(bool value) override { return put(Json(value)); }
  bool number_integer(number_integer_t value) override { return put(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return put(Json(value)); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (limits_.keep_big_integers && text.find_first_of(".eE") == string_t::npos) {
      return put(Json::binary({text.begin(), text.end()}));
    }
    return put(Json(value));
  }
  bool string(string_t& value) override { return put(Json(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override {
    keys_.pop_back();
    return close();
  }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (!limits_.allow_duplicate_keys && !keys_.back().insert(name).second) {
      fail("{}: the key '{}' occurs twice in one object", where_, printable(name));
    }
    key_ = name;
    return true;
  }
  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception& e) override {
    size_t line = 1, column = 1;
    for (size_t i = 0; i + 1 < position && i < text_.size(); ++i) {
      if (text_[i] == '\n') {
        ++line, column = 1;
      } else {
        ++column;
      }
    }
    std::string reason = e.what();  // "[json.exception.parse_error.101] parse error at line …: syntax error while …"
    if (const size_t colon = reason.find(": "); colon != std::string::npos) reason = reason.substr(colon + 2);
    fail("{}: not valid JSON at line {} column {}: {} (near '{}')", where_, line, column, printable(reason, 160),
         printable(token, 40));
  }

  Json root;

 private:
  bool open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
      fail("{}: JSON nested deeper than {} levels", where_, limits_.max_depth);
    }
    const bool object = container.is_object();
    Json* slot = place(std::move(container));
    stack_.push_back(slot);
    if (object) keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  Json* place(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // ordered_json searches linearly on [], which is quadratic for the 100,000 keys of a vocabulary.
    auto& object = parent.get_ref<Json::object_t&>();
    if (limits_.allow_duplicate_keys) {
      return &(parent[key_] = std::move(value));
    }
    object.std::vector<std::pair<const std::string, Json>>::emplace_back(key_, std::move(value));
    return &object.back().second;
  }

  std::string_view text_, where_;
  JsonLimits limits_;
  std::vector<Json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  Builder builder(text, where, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return std::move(builder.root);
}

Json read_json(const std::string& path, const JsonLimits& limits, size_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path, limits);
}

std::string json_kind(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "an array";
    case Json::value_t::string:
      return fmt::format("the string '{}'", printable(value.get_ref<const std::string&>(), 40));
    case Json::value_t::boolean: return value.get<bool>() ? "true" : "false";
    case Json::value_t::binary:  // keep_big_integers
      return "the number " + printable(std::string(value.get_binary().begin(), value.get_binary().end()), 40);
    default: return "the number " + value.dump();
  }
}

}  // namespace graft
