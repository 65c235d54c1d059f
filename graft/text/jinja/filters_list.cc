// Filters of lists and dicts, and the table of all filters.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "graft/base/error.h"
#include "graft/text/jinja/filters.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

Value filter_default(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("default", args, {"default_value", "boolean"});
  const bool falsy_too = given[1] != nullptr && truthy(*given[1]);
  if (!value.is_undefined() && !(falsy_too && !truthy(value))) return value;
  return given[0] == nullptr ? runtime.string(std::string()) : *given[0];
}

Value filter_length(Runtime& runtime, const Value& value, const Args& args) {
  bind("length", args, {});
  return Value(length(runtime, value));
}

Value filter_list(Runtime& runtime, const Value& value, const Args& args) {
  bind("list", args, {});
  return runtime.list(iterate(runtime, value));
}

Value filter_first(Runtime& runtime, const Value& value, const Args& args) {
  bind("first", args, {});
  const std::vector<Value> values = iterate(runtime, value);
  return values.empty() ? runtime.undefined("no first item, the sequence is empty: undefined") : values.front();
}

Value filter_last(Runtime& runtime, const Value& value, const Args& args) {
  bind("last", args, {});
  const std::vector<Value> values = iterate(runtime, value);
  return values.empty() ? runtime.undefined("no last item, the sequence is empty: undefined") : values.back();
}

// Any item is as good as another; the same one each time keeps prompts the same.
Value filter_random(Runtime& runtime, const Value& value, const Args& args) {
  return filter_first(runtime, value, args);
}

Value filter_reverse(Runtime& runtime, const Value& value, const Args& args) {
  bind("reverse", args, {});
  std::vector<Value> values = iterate(runtime, value);
  std::reverse(values.begin(), values.end());
  if (!value.is_string()) return runtime.iterator(std::move(values));
  TextBuilder out;
  for (const Value& v : values) out.append(v.text());
  return runtime.string(std::move(out));
}

// "a.b.0": attributes and indices one after the other; a number is an index.
using Getter = std::function<Value(const Value&)>;
Getter getter(Runtime& runtime, const Value* path, const Value* otherwise = nullptr) {
  if (path == nullptr || path->is_none()) {
    return [](const Value& v) { return v; };
  }
  std::vector<Value> parts;
  if (path->is_string()) {
    const std::string& s = path->str();
    for (size_t begin = 0; begin <= s.size();) {
      const size_t end = std::min(s.find('.', begin), s.size());
      const std::string part = s.substr(begin, end - begin);
      const bool number =
          !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string::npos;
      parts.push_back(number ? Value(int64_t{std::stoll(part)}) : runtime.string(part));
      begin = end + 1;
    }
  } else {
    parts.push_back(*path);
  }
  const bool has_default = otherwise != nullptr;
  return [&runtime, parts, has_default, fallback = has_default ? *otherwise : Value()](const Value& v) {
    Value value = v;
    for (const Value& part : parts) {
      value = item(runtime, value, part);
      if (has_default && value.is_undefined()) value = fallback;
    }
    return value;
  };
}

Value ignore_case(Runtime& runtime, const Value& value) {
  if (!value.is_string()) return value;
  runtime.scanned(value.str().size());
  return runtime.string(to_lower(value.str()));
}

Value filter_join(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("join", args, {"d", "attribute"});
  std::vector<Value> values = iterate(runtime, value);
  if (given[1] != nullptr && !given[1]->is_none()) {
    const Getter get = getter(runtime, given[1]);
    for (Value& v : values) v = get(v);
  }
  return join(runtime, given[0] == nullptr ? runtime.string(std::string()) : *given[0], values);
}

void sort_values(Runtime& runtime, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  if (reverse) std::reverse(keyed.begin(), keyed.end());  // equal items keep their order
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const auto& a, const auto& b) { return less(runtime, a.first, b.first); });
  if (reverse) std::reverse(keyed.begin(), keyed.end());
}

Value filter_sort(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool exact = given[1] != nullptr && truthy(*given[1]);
  std::vector<Getter> getters;
  if (given[2] != nullptr && given[2]->is_string()) {  // "a,b": by a, then by b
    const std::string& s = given[2]->str();
    for (size_t begin = 0; begin <= s.size();) {
      const size_t end = std::min(s.find(',', begin), s.size());
      const Value part = runtime.string(s.substr(begin, end - begin));
      getters.push_back(getter(runtime, &part));
      begin = end + 1;
    }
  } else {
    getters.push_back(getter(runtime, given[2]));
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& v : iterate(runtime, value)) {
    std::vector<Value> key;
    for (const Getter& get : getters) key.push_back(exact ? get(v) : ignore_case(runtime, get(v)));
    keyed.emplace_back(runtime.list(std::move(key)), v);  // lists: two undefined keys are equal, not an error
  }
  sort_values(runtime, keyed, given[0] != nullptr && truthy(*given[0]));
  std::vector<Value> out;
  for (auto& [key, v] : keyed) out.push_back(std::move(v));
  return runtime.list(std::move(out));
}

Value filter_dictsort(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("dictsort", args, {"case_sensitive", "by", "reverse"});
  const bool exact = given[0] != nullptr && truthy(*given[0]);
  const std::string by = given[1] == nullptr ? "key" : to_text(runtime, *given[1]).str();
  if (by != "key" && by != "value") throw Fault{"dictsort: you can only sort by either \"key\" or \"value\""};
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is(Kind::dict)) throw Fault{fmt::format("dictsort: a mapping is required, not {}", type_name(value))};
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, v] : value.dict().entries) {
    const Value& chosen = by == "key" ? key : v;
    keyed.emplace_back(exact ? chosen : ignore_case(runtime, chosen), runtime.tuple({key, v}));
  }
  sort_values(runtime, keyed, given[2] != nullptr && truthy(*given[2]));
  std::vector<Value> out;
  for (auto& [key, pair] : keyed) out.push_back(std::move(pair));
  return runtime.list(std::move(out));
}

Value filter_unique(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("unique", args, {"case_sensitive", "attribute"});
  const bool exact = given[0] != nullptr && truthy(*given[0]);
  const Getter get = getter(runtime, given[1]);
  Dict seen;
  std::vector<Value> out;
  for (const Value& v : iterate(runtime, value)) {
    const Value key = exact ? get(v) : ignore_case(runtime, get(v));
    if (!hashable(key)) throw Fault{fmt::format("unhashable type: '{}'", type_name(key))};
    runtime.step(1 + static_cast<int64_t>(key.is_string() ? 0 : seen.entries.size() >> 3));
    if (seen.find(key) != nullptr) continue;
    seen.entries.emplace_back(key, Value());
    out.push_back(v);
  }
  return runtime.iterator(std::move(out));
}

Value filter_items(Runtime& runtime, const Value& value, const Args& args) {
  bind("items", args, {});
  if (value.is_undefined()) return runtime.iterator({});
  if (!value.is(Kind::dict)) throw Fault{"items: can only get item pairs from a mapping"};
  std::vector<Value> out;
  for (const auto& [key, v] : value.dict().entries) out.push_back(runtime.tuple({key, v}));
  return runtime.iterator(std::move(out));
}

Value filter_map(Runtime& runtime, const Value& value, const Args& args) {
  if (!truthy(value)) return runtime.iterator({});
  std::vector<Value> values = iterate(runtime, value);
  if (args.positional.empty()) {
    const auto given = bind("map", args, {"attribute", "default"}, 1);
    const Getter get = getter(runtime, given[0], given[1]);
    for (Value& v : values) {
      runtime.step();
      v = get(v);
    }
    return runtime.iterator(std::move(values));
  }
  const std::string name = to_text(runtime, args.positional[0]).str();
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) throw Fault{fmt::format("there is no filter '{}'", printable(name))};
  const Args rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (Value& v : values) {
    runtime.step();
    v = filter(runtime, v, rest);
  }
  return runtime.iterator(std::move(values));
}

// select, reject (whole items) and selectattr, rejectattr (by an attribute)
template <bool kKeep, bool kAttribute>
Value filter_choose(Runtime& runtime, const Value& value, const Args& args) {
  if (!truthy(value)) return runtime.iterator({});
  size_t next = 0;
  Getter get = getter(runtime, nullptr);
  if (kAttribute) {
    if (args.positional.empty()) throw Fault{"selectattr and rejectattr need the name of an attribute"};
    get = getter(runtime, &args.positional[next++]);
  }
  TestFunction test = nullptr;
  Args rest{{}, args.named};
  if (next < args.positional.size()) {
    const std::string name = to_text(runtime, args.positional[next++]).str();
    test = find_test(name);
    if (test == nullptr) throw Fault{fmt::format("there is no test '{}'", printable(name))};
    rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(next), args.positional.end());
  }
  std::vector<Value> out;
  for (const Value& v : iterate(runtime, value)) {
    runtime.step();
    const Value chosen = get(v);
    if ((test == nullptr ? truthy(chosen) : test(runtime, chosen, rest)) == kKeep) out.push_back(v);
  }
  return runtime.iterator(std::move(out));
}

Value filter_batch(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("batch", args, {"linecount", "fill_with"}, 1);
  const int64_t size = as_index(*given[0], "linecount");
  if (size <= 0) throw Fault{"batch: the size must be positive"};
  std::vector<Value> out, line;
  for (Value& v : iterate(runtime, value)) {
    if (static_cast<int64_t>(line.size()) == size) {
      out.push_back(runtime.list(std::move(line)));
      line.clear();
    }
    line.push_back(std::move(v));
  }
  if (!line.empty()) {
    if (given[1] != nullptr && !given[1]->is_none()) {
      runtime.reserve(size > runtime.limits.live_bytes ? size : size * static_cast<int64_t>(sizeof(Value)));
      line.resize(static_cast<size_t>(size), *given[1]);
    }
    out.push_back(runtime.list(std::move(line)));
  }
  return runtime.iterator(std::move(out));
}

Value filter_slice(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("slice", args, {"slices", "fill_with"}, 1);
  const int64_t slices = as_index(*given[0], "slices");
  if (slices <= 0) throw Fault{"slice: the number of slices must be positive"};
  const std::vector<Value> values = iterate(runtime, value);
  const auto size = static_cast<int64_t>(values.size());
  runtime.step(slices);
  const int64_t each = size / slices, longer = size % slices;
  std::vector<Value> out;
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const auto count = static_cast<size_t>(each + (i < longer));
    std::vector<Value> part(values.begin() + static_cast<std::ptrdiff_t>(at),
                            values.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    if (given[1] != nullptr && !given[1]->is_none() && i >= longer) part.push_back(*given[1]);
    out.push_back(runtime.list(std::move(part)));
  }
  return runtime.iterator(std::move(out));
}

Value filter_groupby(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const bool exact = given[2] != nullptr && truthy(*given[2]);
  const Getter get = getter(runtime, given[0], given[1]);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& v : iterate(runtime, value)) {
    const Value key = get(v);
    keyed.emplace_back(exact ? key : ignore_case(runtime, key), v);
  }
  sort_values(runtime, keyed, false);
  std::vector<Value> out;
  for (size_t begin = 0; begin < keyed.size();) {
    size_t end = begin;
    std::vector<Value> members;
    while (end < keyed.size() && equal(runtime, keyed[begin].first, keyed[end].first)) {
      members.push_back(keyed[end++].second);
    }
    const Value grouper = get(members.front());
    Value pair = runtime.tuple({grouper, runtime.list(std::move(members))});
    static_cast<Items&>(*pair.object()).group = true;
    out.push_back(std::move(pair));
    begin = end;
  }
  return runtime.list(std::move(out));
}

Value filter_sum(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("sum", args, {"attribute", "start"});
  Value sum = given[1] == nullptr ? Value(int64_t{0}) : *given[1];
  const Getter get = getter(runtime, given[0]);
  for (const Value& v : iterate(runtime, value)) sum = arithmetic(runtime, Operator::add, sum, get(v));
  return sum;
}

template <bool kMax>
Value filter_extreme(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind(kMax ? "max" : "min", args, {"case_sensitive", "attribute"});
  const bool exact = given[0] != nullptr && truthy(*given[0]);
  const Getter get = getter(runtime, given[1]);
  const std::vector<Value> values = iterate(runtime, value);
  if (values.empty()) return runtime.undefined("no aggregated item, the sequence is empty: undefined");
  const auto key = [&](const Value& v) { return exact ? get(v) : ignore_case(runtime, get(v)); };
  Value best = values[0], best_key = key(best);
  for (size_t i = 1; i < values.size(); ++i) {
    Value k = key(values[i]);
    if (kMax ? less(runtime, best_key, k) : less(runtime, k, best_key)) best = values[i], best_key = std::move(k);
  }
  return best;
}

Value filter_attr(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("attr", args, {"name"}, 1);
  const Value name = to_text(runtime, *given[0]);
  if (value.is_undefined()) fail_undefined(value);
  if (auto found = member(runtime, value, name.str())) return *found;
  return runtime.undefined(fmt::format("'{} object' has no attribute '{}'", type_name(value), printable(name.str())));
}

}  // namespace

std::span<const FilterRow> list_filters() {
  static constexpr FilterRow kRows[] = {
      {"default", filter_default},
      {"d", filter_default},
      {"length", filter_length},
      {"count", filter_length},
      {"list", filter_list},
      {"first", filter_first},
      {"last", filter_last},
      {"random", filter_random},
      {"reverse", filter_reverse},
      {"join", filter_join},
      {"sort", filter_sort},
      {"dictsort", filter_dictsort},
      {"unique", filter_unique},
      {"items", filter_items},
      {"map", filter_map},
      {"select", filter_choose<true, false>},
      {"reject", filter_choose<false, false>},
      {"selectattr", filter_choose<true, true>},
      {"rejectattr", filter_choose<false, true>},
      {"batch", filter_batch},
      {"slice", filter_slice},
      {"groupby", filter_groupby},
      {"sum", filter_sum},
      {"max", filter_extreme<true>},
      {"min", filter_extreme<false>},
      {"attr", filter_attr},
  };
  return kRows;
}

FilterFunction find_filter(std::string_view name) {
  for (const auto rows : {text_filters(), list_filters()}) {
    for (const FilterRow& row : rows) {
      if (row.name == name) return row.function;
    }
  }
  return nullptr;
}

}  // namespace graft::jinja
