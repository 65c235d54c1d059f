#include "graft/formats/json_fields.h"

#include <cmath>

#include "graft/base/error.h"

namespace graft {
namespace {

constexpr size_t kMaxFaultsShown = 20;

// Values from outside may be long lists or objects: their kind is enough.
std::string show(const Json& value) { return printable(json_kind(value), 120); }

}  // namespace

void Faults::throw_if_any(std::string_view where, std::string hint) const {
  if (lines_.empty()) return;
  if (lines_.size() == 1) fail_hint(std::move(hint), "{}: {}", where, lines_[0]);
  std::string text;
  for (size_t i = 0; i < lines_.size() && i < kMaxFaultsShown; ++i) text += "\n  " + lines_[i];
  if (lines_.size() > kMaxFaultsShown) text += fmt::format("\n  … and {} more", lines_.size() - kMaxFaultsShown);
  fail_hint(std::move(hint), "{}: {} faults{}", where, lines_.size(), text);
}

std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto x = value.get<uint64_t>();
    return x <= static_cast<uint64_t>(INT64_MAX) ? std::optional(static_cast<int64_t>(x)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double x = value.get<double>();
    if (std::abs(x) < 0x1p53 && x == std::floor(x)) return static_cast<int64_t>(x);
  }
  return std::nullopt;
}

const Json* JsonFields::find(std::string_view key) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(std::string(key));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

int64_t JsonFields::whole(std::string_view key, std::optional<int64_t> fallback, int64_t low, int64_t high) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  const auto x = value == nullptr ? std::nullopt : whole_number(*value);
  if (x && *x >= low && *x <= high) return *x;
  faults_.add("{} is {}, expected a whole number from {} to {}", name(key), value == nullptr ? "missing" : show(*value),
              low, high);
  return fallback.value_or(low);
}

double JsonFields::number(std::string_view key, std::optional<double> fallback,
                          const std::function<bool(double)>& valid, std::string_view range) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value != nullptr && value->is_number()) {
    const double x = value->get<double>();
    if (std::isfinite(x) && valid(x)) return x;
  }
  faults_.add("{} is {}, expected a number {}", name(key), value == nullptr ? "missing" : show(*value), range);
  return fallback.value_or(1.0);
}

double JsonFields::positive(std::string_view key, std::optional<double> fallback) const {
  return number(
      key, fallback, [](double x) { return x > 0; }, "> 0");
}

bool JsonFields::boolean(std::string_view key, std::optional<bool> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value != nullptr && value->is_boolean()) return value->get<bool>();
  faults_.add("{} is {}, expected true or false", name(key), value == nullptr ? "missing" : show(*value));
  return fallback.value_or(false);
}

std::string JsonFields::text(std::string_view key, std::optional<std::string> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  faults_.add("{} is {}, expected a string", name(key), value == nullptr ? "missing" : show(*value));
  return fallback.value_or("");
}

std::vector<double> JsonFields::numbers(std::string_view key) const {
  std::vector<double> list;
  const Json* value = find(key);
  if (value == nullptr) return list;
  if (!value->is_array()) {
    faults_.add("{} is {}, expected a list of numbers", name(key), show(*value));
    return list;
  }
  for (const Json& entry : *value) {
    if (!entry.is_number() || !std::isfinite(entry.get<double>())) {
      faults_.add("{} holds {}, expected numbers", name(key), show(entry));
      break;
    }
    list.push_back(entry.get<double>());
  }
  return list;
}

std::vector<int64_t> JsonFields::wholes(std::string_view key, int64_t low, int64_t high) const {
  std::vector<int64_t> list;
  const Json* value = find(key);
  if (value == nullptr) return list;
  const auto take = [&](const Json& entry) {
    const auto x = whole_number(entry);
    if (x && *x >= low && *x <= high) {
      list.push_back(*x);
      return true;
    }
    faults_.add("{} {} {}, expected whole numbers from {} to {}", name(key), value->is_array() ? "holds" : "is",
                show(entry), low, high);
    return false;
  };
  if (!value->is_array()) {
    take(*value);
    return list;
  }
  for (const Json& entry : *value) {
    if (!take(entry)) break;
  }
  return list;
}

std::vector<std::string> JsonFields::texts(std::string_view key) const {
  std::vector<std::string> list;
  const Json* value = find(key);
  if (value == nullptr) return list;
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array()) {
    faults_.add("{} is {}, expected a list of strings", name(key), show(*value));
    return list;
  }
  for (const Json& entry : *value) {
    if (!entry.is_string()) {
      faults_.add("{} holds {}, expected strings", name(key), show(entry));
      break;
    }
    list.push_back(entry.get<std::string>());
  }
  return list;
}

}  // namespace graft
