#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, Args&);

class BoundMethod : public Callable {
 public:
  BoundMethod(Value self, std::string_view name, Method method)
      : self_(std::move(self)), name_(name), method_(method) {}
  Value call(Runtime& runtime, Args& args) override { return method_(runtime, self_, args); }
  std::string describe() const override {
    return fmt::format("<built-in method {} of {} object>", name_, type_name(self_));
  }

 private:
  Value self_;
  std::string_view name_;
  Method method_;
};

const Value& text_argument(const Value* value, std::string_view what) {
  if (value->is_undefined()) fail_undefined(*value);
  if (!value->is_string()) throw Fault{fmt::format("{} must be a string, not {}", what, type_name(*value))};
  return *value;
}

// ---- strings

template <bool kLeft, bool kRight>
Value text_strip(Runtime& runtime, const Value& self, Args& args) {
  return strip(runtime, self, bind("strip", args, {"chars"})[0], kLeft, kRight);
}

template <std::string (*kMap)(std::string_view)>
Value text_map(Runtime& runtime, const Value& self, Args& args) {
  bind("a case method", args, {});
  runtime.scanned(self.str().size() * 2);
  return runtime.derived(kMap(self.str()), self.text());
}

Value text_split(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("split", args, {"sep", "maxsplit"});
  int64_t rest = number_or(given[1], -1, "maxsplit");
  if (rest < 0) rest = INT64_MAX;
  const std::string& s = self.str();
  std::vector<Value> out;
  runtime.copied(s.size());
  if (given[0] == nullptr || given[0]->is_none()) {
    runtime.scanned(s.size());
    size_t begin = skip_space(s, 0, s.size());
    while (begin < s.size()) {
      if (rest-- == 0) {
        out.push_back(runtime.slice(self, begin, s.size()));
        break;
      }
      size_t end = begin;
      for (size_t next = begin; next < s.size(); end = next) {
        if (is_space(next_code_point(s, next))) break;
      }
      out.push_back(runtime.slice(self, begin, end));
      begin = skip_space(s, end, s.size());
    }
    return runtime.list(std::move(out));
  }
  const std::string& separator = text_argument(given[0], "the separator").str();
  if (separator.empty()) throw Fault{"empty separator"};
  size_t begin = 0;
  for (size_t at = s.find(separator); at != std::string::npos && rest > 0; at = s.find(separator, begin), --rest) {
    out.push_back(runtime.slice(self, begin, at));
    begin = at + separator.size();
  }
  out.push_back(runtime.slice(self, begin, s.size()));
  return runtime.list(std::move(out));
}

Value text_rsplit(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("rsplit", args, {"sep", "maxsplit"});
  int64_t rest = number_or(given[1], -1, "maxsplit");
  if (rest < 0) rest = INT64_MAX;
  const std::string& s = self.str();
  std::vector<Value> out;
  runtime.copied(s.size());
  size_t end = s.size();
  if (given[0] == nullptr || given[0]->is_none()) {
    runtime.scanned(s.size());
    end = skip_space_back(s, 0, end);
    while (end > 0) {
      if (rest-- == 0) {
        out.push_back(runtime.slice(self, 0, end));
        break;
      }
      size_t begin = 0, i = 0;  // after the last white space before end
      for (i = end; i > 0;) {
        size_t start = i - 1;
        while (start > 0 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
        size_t next = start;
        if (is_space(next_code_point(s, next))) {
          begin = i;
          break;
        }
        i = start;
      }
      out.push_back(runtime.slice(self, begin, end));
      end = skip_space_back(s, 0, begin);
    }
  } else {
    const std::string& separator = text_argument(given[0], "the separator").str();
    if (separator.empty()) throw Fault{"empty separator"};
    while (rest-- > 0 && end >= separator.size()) {
      const size_t at = s.rfind(separator, end - separator.size());
      if (at == std::string::npos) break;
      out.push_back(runtime.slice(self, at + separator.size(), end));
      end = at;
    }
    out.push_back(runtime.slice(self, 0, end));
  }
  std::reverse(out.begin(), out.end());
  return runtime.list(std::move(out));
}

template <bool kLast>
Value text_partition(Runtime& runtime, const Value& self, Args& args) {
  const std::string& separator = text_argument(bind("partition", args, {"sep"}, 1)[0], "the separator").str();
  if (separator.empty()) throw Fault{"empty separator"};
  const std::string& s = self.str();
  runtime.copied(s.size());
  const size_t at = kLast ? s.rfind(separator) : s.find(separator);
  const Value nothing = runtime.string(std::string());
  if (at == std::string::npos) {
    return runtime.tuple(kLast ? std::vector<Value>{nothing, nothing, self}
                               : std::vector<Value>{self, nothing, nothing});
  }
  const size_t after = at + separator.size();
  return runtime.tuple(
      {runtime.slice(self, 0, at), runtime.slice(self, at, after), runtime.slice(self, after, s.size())});
}

// The part of the text between the optional start and end, in bytes.
std::pair<size_t, size_t> window(Runtime& runtime, const std::string& s, const Value* start, const Value* end) {
  if (start == nullptr && end == nullptr) return {0, s.size()};
  runtime.scanned(s.size());
  const int64_t size = count_code_points(s);
  const auto clamp = [&](const Value* v, int64_t otherwise) {
    if (v == nullptr || v->is_none()) return otherwise;
    int64_t i = as_index(*v, "a position");
    if (i < 0) i = i < -size ? 0 : i + size;
    return i;
  };
  const int64_t from = clamp(start, 0), to = std::min(clamp(end, size), size);
  if (from > to) return {1, 0};
  const size_t begin = code_point_offset(s, 0, from);
  return {begin, code_point_offset(s, begin, to - from)};
}

template <bool kEnd>
Value text_affix(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind(kEnd ? "endswith" : "startswith", args, {"prefix", "start", "end"}, 1);
  const auto [begin, end] = window(runtime, self.str(), given[1], given[2]);
  if (begin > end) return Value(false);
  const std::string_view part = std::string_view(self.str()).substr(begin, end - begin);
  const auto matches = [&](const Value& affix) {
    const std::string& a = text_argument(&affix, kEnd ? "the suffix" : "the prefix").str();
    if (a.size() > part.size()) return false;
    return (kEnd ? part.substr(part.size() - a.size()) : part.substr(0, a.size())) == a;
  };
  if (given[0]->is(Kind::tuple)) {
    const auto& all = given[0]->items().values;
    runtime.step(static_cast<int64_t>(all.size()));
    return Value(std::any_of(all.begin(), all.end(), matches));
  }
  return Value(matches(*given[0]));
}

enum class Search { find, rfind, index, rindex };
template <Search kSearch>
Value text_find(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("find", args, {"sub", "start", "end"}, 1);
  const std::string &s = self.str(), &sub = text_argument(given[0], "the text to find").str();
  const auto [begin, end] = window(runtime, s, given[1], given[2]);
  runtime.scanned(s.size());
  constexpr bool kLast = kSearch == Search::rfind || kSearch == Search::rindex;
  if (begin <= end) {
    const std::string_view part = std::string_view(s).substr(begin, end - begin);
    const size_t at = kLast ? part.rfind(sub) : part.find(sub);
    if (at != std::string_view::npos) return Value(count_code_points(std::string_view(s).substr(0, begin + at)));
  }
  if (kSearch == Search::index || kSearch == Search::rindex) throw Fault{"substring not found"};
  return Value(int64_t{-1});
}

Value text_count(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("count", args, {"sub", "start", "end"}, 1);
  const std::string &s = self.str(), &sub = text_argument(given[0], "the text to count").str();
  const auto [begin, end] = window(runtime, s, given[1], given[2]);
  if (begin > end) return Value(int64_t{0});
  runtime.scanned(s.size());
  const std::string_view part = std::string_view(s).substr(begin, end - begin);
  if (sub.empty()) return Value(count_code_points(part) + 1);
  int64_t count = 0;
  for (size_t at = part.find(sub); at != std::string_view::npos; at = part.find(sub, at + sub.size())) ++count;
  return Value(count);
}

Value text_replace(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("replace", args, {"old", "new", "count"}, 2);
  return replace(runtime, self, *given[0], *given[1], number_or(given[2], -1, "count"));
}

Value text_join(Runtime& runtime, const Value& self, Args& args) {
  const std::vector<Value> parts = iterate(runtime, *bind("join", args, {"iterable"}, 1)[0]);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].is_string()) {
      throw Fault{fmt::format("sequence item {}: expected a string, found {}", i, type_name(parts[i]))};
    }
  }
  return join(runtime, self, parts);
}

template <bool (*kTest)(int32_t)>
Value text_all(Runtime& runtime, const Value& self, Args& args) {
  bind("a test of a string", args, {});
  runtime.scanned(self.str().size());
  for (size_t i = 0; i < self.str().size();) {
    if (!kTest(next_code_point(self.str(), i))) return Value(false);
  }
  return Value(!self.str().empty());
}

bool letter_or_number(int32_t c) { return is_letter(c) || is_numeric(c); }
bool is_ascii(int32_t c) { return c < 0x80; }

Value text_isascii(Runtime& runtime, const Value& self, Args& args) {
  return self.str().empty() ? Value(true) : text_all<is_ascii>(runtime, self, args);
}

template <bool kUpper>
Value text_iscase(Runtime& runtime, const Value& self, Args& args) {
  bind("isupper", args, {});
  runtime.scanned(self.str().size());
  bool any = false;
  for (size_t i = 0; i < self.str().size();) {
    const int32_t c = next_code_point(self.str(), i);
    if (kUpper ? is_lower(c) || (is_cased(c) && !is_upper(c)) : is_upper(c) || (is_cased(c) && !is_lower(c))) {
      return Value(false);
    }
    any = any || is_cased(c);
  }
  return Value(any);
}

enum class Side { left, right, both };
template <Side kSide>  // where the text stands
Value text_justify(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("ljust", args, {"width", "fillchar"}, 1);
  const int64_t width = as_index(*given[0], "width");
  const std::string fill = given[1] == nullptr ? " " : text_argument(given[1], "the fill character").str();
  if (count_code_points(fill) != 1) throw Fault{"the fill character must be exactly one character long"};
  const int64_t missing = width - length(runtime, self);
  if (missing <= 0) return self;
  runtime.check_string(missing > runtime.limits.string_bytes ? missing : missing * static_cast<int64_t>(fill.size()));
  runtime.copied(static_cast<size_t>(missing));
  // Python's center puts the odd one to the left if the width is odd.
  const int64_t left = kSide == Side::left ? 0 : kSide == Side::right ? missing : missing / 2 + (missing & width & 1);
  TextBuilder out;
  for (int64_t i = 0; i < left; ++i) out.literal(fill);
  out.append(self.text());
  for (int64_t i = left; i < missing; ++i) out.literal(fill);
  return runtime.string(std::move(out));
}

Value text_zfill(Runtime& runtime, const Value& self, Args& args) {
  const int64_t width = as_index(*bind("zfill", args, {"width"}, 1)[0], "width");
  const int64_t missing = width - length(runtime, self);
  if (missing <= 0) return self;
  runtime.check_string(missing);
  const size_t sign = !self.str().empty() && (self.str()[0] == '-' || self.str()[0] == '+');
  TextBuilder out;
  out.append(self.text(), 0, sign);
  out.literal(std::string(static_cast<size_t>(missing), '0'));
  out.append(self.text(), sign, self.str().size());
  return runtime.string(std::move(out));
}

template <bool kSuffix>
Value text_remove_affix(Runtime& runtime, const Value& self, Args& args) {
  const std::string& affix = text_argument(bind("removeprefix", args, {"prefix"}, 1)[0], "the prefix").str();
  const std::string& s = self.str();
  if (affix.empty() || affix.size() > s.size()) return self;
  const size_t at = kSuffix ? s.size() - affix.size() : 0;
  if (s.compare(at, affix.size(), affix) != 0) return self;
  return kSuffix ? runtime.slice(self, 0, at) : runtime.slice(self, affix.size(), s.size());
}

Value text_splitlines(Runtime& runtime, const Value& self, Args& args) {
  const auto given = bind("splitlines", args, {"keepends"});
  return runtime.list(split_lines(runtime, self, given[0] != nullptr && truthy(*given[0])));
}

Value text_expandtabs(Runtime& runtime, const Value& self, Args& args) {
  const int64_t size = number_or(bind("expandtabs", args, {"tabsize"})[0], 8, "tabsize");
  TextBuilder out;
  int64_t column = 0;
  const std::string& s = self.str();
  runtime.scanned(s.size());
  for (size_t i = 0; i < s.size();) {
    size_t next = i;
    const int32_t c = next_code_point(s, next);
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      runtime.check_string(spaces > runtime.limits.string_bytes ? spaces : static_cast<int64_t>(out.size()) + spaces);
      runtime.copied(static_cast<size_t>(spaces));
      out.literal(std::string(static_cast<size_t>(spaces), ' '));
      column += spaces;
    } else {
      out.append(self.text(), i, next);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    i = next;
  }
  return runtime.string(std::move(out));
}

Value text_format(Runtime& runtime, const Value& self, Args& args) { return brace_format(runtime, self.text(), args); }

Value text_format_map(Runtime& runtime, const Value& self, Args& args) {
  const Value map = *bind("format_map", args, {"mapping"}, 1)[0];
  Args named;
  if (!map.is(Kind::dict)) throw Fault{fmt::format("format_map() expects a mapping, not {}", type_name(map))};
  for (const auto& [key, value] : map.dict().entries) {
    if (key.is_string()) named.named.emplace_back(key.str(), value);
  }
  return brace_format(runtime, self.text(), named);
}

// ---- lists, tuples, ranges

Value list_index(Runtime& runtime, const Value& self, Args& args) {
  const Value& wanted = *bind("index", args, {"value"}, 1)[0];
  const std::vector<Value> values = iterate(runtime, self);
  for (size_t i = 0; i < values.size(); ++i) {
    if (equal(runtime, values[i], wanted)) return Value(static_cast<int64_t>(i));
  }
  throw Fault{"the value is not in the list"};
}

Value list_count(Runtime& runtime, const Value& self, Args& args) {
  const Value& wanted = *bind("count", args, {"value"}, 1)[0];
  int64_t count = 0;
  for (const Value& v : iterate(runtime, self)) count += equal(runtime, v, wanted);
  return Value(count);
}

Value copy_of(Runtime&, const Value& self, Args& args) {
  bind("copy", args, {});
  return self;  // values never change
}

// ---- dicts

Value dict_get(Runtime&, const Value& self, Args& args) {
  const auto given = bind("get", args, {"key", "default"}, 1);
  if (!hashable(*given[0])) throw Fault{fmt::format("unhashable type: '{}'", type_name(*given[0]))};
  if (const Value* found = self.dict().find(*given[0])) return *found;
  return given[1] == nullptr ? Value() : *given[1];
}

enum class View { keys, values, items };
template <View kView>
Value dict_view(Runtime& runtime, const Value& self, Args& args) {
  bind("items", args, {});
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict().entries) {
    out.push_back(kView == View::keys ? key : kView == View::values ? value : runtime.tuple({key, value}));
  }
  return runtime.iterator(std::move(out), kView == View::keys     ? "dict_keys"
                                          : kView == View::values ? "dict_values"
                                                                  : "dict_items");
}

Value int_bit_length(Runtime&, const Value& self, Args& args) {
  bind("bit_length", args, {});
  int64_t bits = 0;
  for (uint64_t n = self.integer() < 0 ? 0 - static_cast<uint64_t>(self.integer())
                                       : static_cast<uint64_t>(self.integer());
       n > 0; n >>= 1) {
    ++bits;
  }
  return Value(bits);
}

Value real_is_integer(Runtime&, const Value& self, Args& args) {
  bind("is_integer", args, {});
  return Value(std::isfinite(self.real()) && std::floor(self.real()) == self.real());
}

using Row = std::pair<std::string_view, Method>;
constexpr Row kTextMethods[] = {{"strip", text_strip<true, true>},
                                {"lstrip", text_strip<true, false>},
                                {"rstrip", text_strip<false, true>},
                                {"upper", text_map<to_upper>},
                                {"lower", text_map<to_lower>},
                                {"title", text_map<to_title>},
                                {"capitalize", text_map<to_capitalized>},
                                {"casefold", text_map<to_casefolded>},
                                {"swapcase", text_map<swap_case>},
                                {"split", text_split},
                                {"rsplit", text_rsplit},
                                {"splitlines", text_splitlines},
                                {"partition", text_partition<false>},
                                {"rpartition", text_partition<true>},
                                {"startswith", text_affix<false>},
                                {"endswith", text_affix<true>},
                                {"find", text_find<Search::find>},
                                {"rfind", text_find<Search::rfind>},
                                {"index", text_find<Search::index>},
                                {"rindex", text_find<Search::rindex>},
                                {"count", text_count},
                                {"replace", text_replace},
                                {"join", text_join},
                                {"isdigit", text_all<is_decimal>},
                                {"isdecimal", text_all<is_decimal>},
                                {"isnumeric", text_all<is_numeric>},
                                {"isalpha", text_all<is_letter>},
                                {"isalnum", text_all<letter_or_number>},
                                {"isspace", text_all<is_space>},
                                {"isascii", text_isascii},
                                {"isupper", text_iscase<true>},
                                {"islower", text_iscase<false>},
                                {"ljust", text_justify<Side::left>},
                                {"rjust", text_justify<Side::right>},
                                {"center", text_justify<Side::both>},
                                {"zfill", text_zfill},
                                {"removeprefix", text_remove_affix<false>},
                                {"removesuffix", text_remove_affix<true>},
                                {"expandtabs", text_expandtabs},
                                {"format", text_format},
                                {"format_map", text_format_map}};
constexpr Row kListMethods[] = {{"index", list_index}, {"count", list_count}, {"copy", copy_of}};
constexpr Row kTupleMethods[] = {{"index", list_index}, {"count", list_count}};
constexpr Row kDictMethods[] = {{"get", dict_get},
                                {"items", dict_view<View::items>},
                                {"keys", dict_view<View::keys>},
                                {"values", dict_view<View::values>},
                                {"copy", copy_of}};
constexpr Row kIntMethods[] = {{"bit_length", int_bit_length}};
constexpr Row kRealMethods[] = {{"is_integer", real_is_integer}};

// What would change a value; the sandbox of transformers refuses it too.
constexpr std::string_view kListChanges[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

template <size_t N>
std::optional<Value> method_of(Runtime& runtime, const Row (&rows)[N], const Value& object, std::string_view name) {
  const Row* row = std::find_if(std::begin(rows), std::end(rows), [&](const Row& r) { return r.first == name; });
  if (row == std::end(rows)) return std::nullopt;
  return runtime.callable(std::make_shared<BoundMethod>(object, row->first, row->second), object.depth());
}

}  // namespace

std::optional<Value> member(Runtime& runtime, const Value& object, std::string_view name) {
  const bool changes =
      (object.is(Kind::list) && among(kListChanges, name)) || (object.is(Kind::dict) && among(kDictChanges, name));
  const bool hidden = name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__";
  if (changes || hidden) {
    return runtime.undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", printable(name), type_name(object)));
  }
  switch (object.kind()) {
    case Kind::string: return method_of(runtime, kTextMethods, object, name);
    case Kind::list: return method_of(runtime, kListMethods, object, name);
    case Kind::tuple:
      if (object.items().group && name == "grouper") return object.items().values[0];
      if (object.items().group && name == "list") return object.items().values[1];
      return method_of(runtime, kTupleMethods, object, name);
    case Kind::range: {
      const Range& range = object.range();
      if (name == "start") return Value(range.start);
      if (name == "stop") return Value(range.stop);
      if (name == "step") return Value(range.step);
      return method_of(runtime, kTupleMethods, object, name);
    }
    case Kind::dict: return method_of(runtime, kDictMethods, object, name);
    case Kind::boolean:
    case Kind::integer: return method_of(runtime, kIntMethods, object, name);
    case Kind::real: return method_of(runtime, kRealMethods, object, name);
    case Kind::space: {
      const Value* found = object.space().find(name);
      return found == nullptr ? std::nullopt : std::optional<Value>(*found);
    }
    case Kind::callable: return object.callable().attribute(runtime, name);
    default: return std::nullopt;
  }
}

Value attribute(Runtime& runtime, const Value& object, const Value& name) {
  if (object.is_undefined()) fail_undefined(object);
  if (auto found = member(runtime, object, name.str())) return *found;
  return subscript(runtime, object, name);
}

Value item(Runtime& runtime, const Value& object, const Value& key) {
  Value found = subscript(runtime, object, key);
  if (!found.is_undefined() || !key.is_string()) return found;
  if (auto attribute_of_that_name = member(runtime, object, key.str())) return *attribute_of_that_name;
  return found;
}

Value call(Runtime& runtime, const Value& function, Args& args) {
  runtime.step();
  if (function.is_undefined()) fail_undefined(function);
  if (!function.is(Kind::callable) || !function.callable().can_call()) {
    throw Fault{fmt::format("'{}' object is not callable", type_name(function))};
  }
  const Value keep = function;  // what it is stored in may be assigned anew meanwhile
  return keep.callable().call(runtime, args);
}

}  // namespace graft::jinja
