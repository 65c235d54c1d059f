#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// Collects what is wrong with a config, so that one Error names all of it.
class Faults {
 public:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    add_line(fmt::format(format, std::forward<Args>(args)...));
  }
  void add_line(std::string line) { lines_.push_back(std::move(line)); }
  bool empty() const { return lines_.empty(); }
  const std::vector<std::string>& lines() const { return lines_; }
  // "WHERE: the fault", or "WHERE: N faults" and a line each; the first 20 and a count.
  void throw_if_any(std::string_view where, std::string hint = {}) const;

 private:
  std::vector<std::string> lines_;
};

// Reads the fields of one JSON object. A field that is missing or null takes its fallback; without one, or with a value
// of another type or outside its range, a fault is added and some legal value returned, so that reading goes on.
class JsonFields {
 public:
  // `prefix` stands before every field's name in faults ("rope_scaling.").
  JsonFields(const Json& object, Faults& faults, std::string prefix = {})
      : object_(object), faults_(faults), prefix_(std::move(prefix)) {}

  const Json* find(std::string_view key) const;  // null when missing or null
  bool has(std::string_view key) const { return find(key) != nullptr; }
  int64_t whole(std::string_view key, std::optional<int64_t> fallback, int64_t low, int64_t high) const;
  // Finite, and `valid`; `range` says what that is: "> 0", "[0, 1)".
  double number(std::string_view key, std::optional<double> fallback, const std::function<bool(double)>& valid,
                std::string_view range) const;
  double positive(std::string_view key, std::optional<double> fallback) const;
  bool boolean(std::string_view key, std::optional<bool> fallback) const;
  std::string text(std::string_view key, std::optional<std::string> fallback) const;
  std::vector<double> numbers(std::string_view key) const;  // empty when missing
  std::vector<int64_t> wholes(std::string_view key, int64_t low,
                              int64_t high) const;             // a number or a list; empty when missing
  std::vector<std::string> texts(std::string_view key) const;  // a string or a list; empty when missing
  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  Faults& faults() const { return faults_; }

 private:
  const Json& object_;
  Faults& faults_;
  std::string prefix_;
};

// A whole number that JSON may have written as 16 or 16.0; empty for anything else.
std::optional<int64_t> whole_number(const Json& value);

}  // namespace graft
