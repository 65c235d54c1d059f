#include "graft/text/jinja/operations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return "undefined";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer:
    case Kind::big: return "int";
    case Kind::real: return "float";
    case Kind::string: return "str";
    case Kind::list: return "list";
    case Kind::tuple: return "tuple";
    case Kind::iterator: return "generator";
    case Kind::range: return "range";
    case Kind::dict: return "dict";
    case Kind::space: return "namespace";
    case Kind::callable: return "function";
  }
  return "object";
}

void fail_undefined(const Value& value) { throw Fault{value.undefined_message()}; }

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return value.integer() != 0;
    case Kind::real: return value.real() != 0;
    case Kind::string: return !value.str().empty();
    case Kind::list:
    case Kind::tuple: return !value.items().values.empty();
    case Kind::dict: return !value.dict().entries.empty();
    case Kind::range: return value.range().length != 0;
    default: return true;
  }
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none: return true;
    case Kind::string: runtime.copied(std::min(a.str().size(), b.str().size())); return a.str() == b.str();
    case Kind::list:
    case Kind::tuple: {
      const auto &x = a.items().values, &y = b.items().values;
      if (&x == &y) return true;
      return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(),
                                                [&](const Value& p, const Value& q) { return equal(runtime, p, q); });
    }
    case Kind::dict: {
      const auto &x = a.dict(), &y = b.dict();
      if (&x == &y) return true;
      if (x.entries.size() != y.entries.size()) return false;
      for (const auto& [key, value] : x.entries) {
        const Value* other = y.find(key);
        if (other == nullptr || !equal(runtime, value, *other)) return false;
      }
      return true;
    }
    case Kind::range: {
      const Range &x = a.range(), &y = b.range();
      return x.length == y.length && (x.length == 0 || (x.start == y.start && (x.length == 1 || x.step == y.step)));
    }
    default: return a.object() == b.object();
  }
}

bool equal_keys(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  if (a.is_string()) return a.str() == b.str();
  if (a.is_none() || a.is_undefined()) return true;
  if (a.is(Kind::tuple)) {
    const auto &x = a.items().values, &y = b.items().values;
    return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(), equal_keys);
  }
  return a.object() == b.object();
}

bool hashable(const Value& value) {
  if (value.is(Kind::list) || value.is(Kind::dict)) return false;
  if (value.is(Kind::tuple)) return std::all_of(value.items().values.begin(), value.items().values.end(), hashable);
  return true;
}

bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view sign) {
  runtime.step();
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == -1;
  if (a.is_string() && b.is_string()) {
    runtime.copied(std::min(a.str().size(), b.str().size()));
    return a.str() < b.str();  // the order of UTF-8 bytes is the order of code points
  }
  if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    const auto &x = a.items().values, &y = b.items().values;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(runtime, x[i], y[i])) return less(runtime, x[i], y[i], sign);
    }
    return x.size() < y.size();
  }
  throw Fault{fmt::format("'{}' not supported between instances of '{}' and '{}'", sign, type_name(a), type_name(b))};
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::undefined: return false;
    case Kind::string:
      if (!item.is_string()) {
        throw Fault{fmt::format("'in <string>' requires string as left operand, not {}", type_name(item))};
      }
      runtime.copied(container.str().size() * 4);
      return container.str().find(item.str()) != std::string::npos;
    case Kind::dict:
      if (!hashable(item)) throw Fault{fmt::format("unhashable type: '{}'", type_name(item))};
      return container.dict().find(item) != nullptr;
    case Kind::list:
    case Kind::tuple:
    case Kind::iterator:
      return std::any_of(container.items().values.begin(), container.items().values.end(),
                         [&](const Value& v) { return equal(runtime, v, item); });
    case Kind::range: {
      const Range& range = container.range();
      for (int64_t i = 0; i < range.length; ++i) {
        if (equal(runtime, range.at(i), item)) return true;
      }
      return false;
    }
    default: throw Fault{fmt::format("argument of type '{}' is not iterable", type_name(container))};
  }
}

void print(Runtime& runtime, TextBuilder& out, const Value& value) {
  if (value.is_string()) {
    runtime.check_string(static_cast<int64_t>(out.size() + value.str().size()));
    out.append(value.text());
    runtime.copied(value.str().size());
  } else if (!value.is_undefined()) {
    represent(runtime, out, value);
  }
}

namespace {

void represent_text(Runtime& runtime, TextBuilder& out, const Text& text) {
  runtime.scanned(text.bytes.size() * 2);
  const char quote =
      text.bytes.find('\'') != std::string::npos && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  std::string shown;
  const std::string& s = text.bytes;
  for (size_t i = 0; i < s.size();) {
    size_t next = i;
    const int32_t c = next_code_point(s, next);
    if (c == quote || c == '\\') {
      shown += '\\', shown += static_cast<char>(c);
    } else if (c == '\n') {
      shown += "\\n";
    } else if (c == '\r') {
      shown += "\\r";
    } else if (c == '\t') {
      shown += "\\t";
    } else if (is_printable(c)) {
      shown.append(s, i, next - i);
    } else if (c < 0x100) {
      shown += fmt::format("\\x{:02x}", c);
    } else if (c < 0x10000) {
      shown += fmt::format("\\u{:04x}", c);
    } else {
      shown += fmt::format("\\U{:08x}", c);
    }
    i = next;
  }
  const char mark[] = {quote};
  out.literal({mark, 1});
  out.derived(shown, text);
  out.literal({mark, 1});
}

}  // namespace

void represent(Runtime& runtime, TextBuilder& out, const Value& value, int depth) {
  runtime.step();
  if (depth > 2 * runtime.limits.container_depth) throw Fault{"printing a value recurses past the depth limit"};
  runtime.check_string(static_cast<int64_t>(out.size()));
  switch (value.kind()) {
    case Kind::undefined: out.literal("Undefined"); return;
    case Kind::none: out.literal("None"); return;
    case Kind::boolean: out.literal(value.boolean() ? "True" : "False"); return;
    case Kind::integer: out.literal(std::to_string(value.integer())); return;
    case Kind::big: out.literal(value.big().to_string()); return;
    case Kind::real: out.literal(show_real(value.real())); return;
    case Kind::string: represent_text(runtime, out, value.text()); return;
    case Kind::iterator:
      if (value.items().shown != nullptr && value.items().shown[0] == '<') {
        out.literal(value.items().shown);
        return;
      }
      [[fallthrough]];
    case Kind::list:
    case Kind::tuple: {
      const auto& values = value.items().values;
      if (value.items().shown != nullptr) out.literal(value.items().shown), out.literal("(");
      out.literal(value.is(Kind::tuple) ? "(" : "[");
      for (size_t i = 0; i < values.size(); ++i) {
        if (i > 0) out.literal(", ");
        represent(runtime, out, values[i], depth + 1);
      }
      if (value.is(Kind::tuple)) {
        out.literal(values.size() == 1 ? ",)" : ")");
      } else {
        out.literal("]");
      }
      if (value.items().shown != nullptr) out.literal(")");
      return;
    }
    case Kind::range: {
      const Range& range = value.range();
      out.literal(range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                                  : fmt::format("range({}, {}, {})", range.start, range.stop, range.step));
      return;
    }
    case Kind::space:
      out.literal("<Namespace {");
      for (size_t i = 0; i < value.space().attributes.size(); ++i) {
        const auto& [name, attribute] = value.space().attributes[i];
        out.literal(fmt::format("{}'{}': ", i > 0 ? ", " : "", name));
        represent(runtime, out, attribute, depth + 1);
      }
      out.literal("}>");
      return;
    case Kind::dict: {
      out.literal("{");
      bool first = true;
      for (const auto& [key, entry] : value.dict().entries) {
        if (!first) out.literal(", ");
        first = false;
        represent(runtime, out, key, depth + 1);
        out.literal(": ");
        represent(runtime, out, entry, depth + 1);
      }
      out.literal("}");
      return;
    }
    case Kind::callable: out.literal(value.callable().describe()); return;
  }
}

Value to_text(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value;
  TextBuilder out;
  print(runtime, out, value);
  return runtime.string(std::move(out));
}

std::vector<Value> iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> out;
  switch (value.kind()) {
    case Kind::undefined: return out;
    case Kind::list:
    case Kind::tuple:
    case Kind::iterator:
      runtime.reserve(static_cast<int64_t>(value.items().values.size() * sizeof(Value)));
      runtime.step(static_cast<int64_t>(value.items().values.size() >> 3));
      return value.items().values;
    case Kind::dict:
      runtime.reserve(static_cast<int64_t>(value.dict().entries.size() * sizeof(Value)));
      for (const auto& [key, entry] : value.dict().entries) out.push_back(key);
      return out;
    case Kind::range:
      for (int64_t i = 0; i < value.range().length; ++i) out.push_back(value.range().at(i));
      runtime.step(value.range().length >> 3);
      return out;
    case Kind::string: {
      const std::string& s = value.str();
      for (size_t i = 0; i < s.size();) {
        size_t next = i;
        next_code_point(s, next);
        TextBuilder one;
        one.append(value.text(), i, next);
        out.push_back(runtime.string(std::move(one)));
        runtime.step();
        i = next;
      }
      return out;
    }
    default: throw Fault{fmt::format("'{}' object is not iterable", type_name(value))};
  }
}

int64_t length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return 0;
    case Kind::string: runtime.scanned(value.str().size()); return count_code_points(value.str());
    case Kind::list:
    case Kind::tuple: return static_cast<int64_t>(value.items().values.size());
    case Kind::iterator:
      if (value.items().shown != nullptr && value.items().shown[0] != '<') {
        return static_cast<int64_t>(value.items().values.size());
      }
      break;
    case Kind::dict: return static_cast<int64_t>(value.dict().entries.size());
    case Kind::range: return value.range().length;
    default: break;
  }
  throw Fault{fmt::format("object of type '{}' has no len()", type_name(value))};
}

namespace {

Value no_element(Runtime& runtime, const Value& object, const Value& key) {
  if (key.is_string()) {
    return runtime.undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), printable(key.str())));
  }
  TextBuilder shown;
  represent(runtime, shown, key);
  return runtime.undefined(fmt::format("{} object has no element {}", type_name(object), printable(shown.bytes())));
}

}  // namespace

Value subscript(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::dict)) {
    if (hashable(key)) {
      if (const Value* found = object.dict().find(key)) return *found;
    }
    return no_element(runtime, object, key);
  }
  if (!key.is_int()) return no_element(runtime, object, key);
  const bool indexable =
      object.is_string() || object.is(Kind::list) || object.is(Kind::tuple) || object.is(Kind::range);
  if (!indexable) return no_element(runtime, object, key);
  int64_t index = key.integer();
  const int64_t size = length(runtime, object);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return no_element(runtime, object, key);
  if (object.is(Kind::range)) return object.range().at(index);
  if (!object.is_string()) return object.items().values[static_cast<size_t>(index)];
  const std::string& s = object.str();
  const size_t begin = code_point_offset(s, 0, index), end = code_point_offset(s, begin, 1);
  runtime.scanned(begin);
  return runtime.slice(object, begin, end);
}

Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) fail_undefined(object);
  const bool sliceable =
      object.is_string() || object.is(Kind::list) || object.is(Kind::tuple) || object.is(Kind::range);
  if (!sliceable) throw Fault{fmt::format("'{}' object cannot be sliced", type_name(object))};
  for (const Value* part : {&start, &stop, &step}) {
    if (part->is_undefined()) fail_undefined(*part);
    if (!part->is_none() && !part->is_int()) {
      throw Fault{fmt::format("slice indices must be integers or none, not {}", type_name(*part))};
    }
  }
  const int64_t by = step.is_none() ? 1 : step.integer();
  if (by == 0) throw Fault{"slice step cannot be zero"};
  const int64_t size = length(runtime, object);
  const auto bound = [&](const Value& part, int64_t otherwise) {
    if (part.is_none()) return otherwise;
    int64_t i = part.integer();
    if (i < 0) i = i < -size ? (by < 0 ? -1 : 0) : i + size;
    return std::min(i, by < 0 ? size - 1 : size);
  };
  int64_t from = bound(start, by < 0 ? size - 1 : 0), to = bound(stop, by < 0 ? -1 : size);
  if (object.is_string() && by == 1) {
    const std::string& s = object.str();
    if (to <= from) return runtime.string(std::string());
    runtime.scanned(s.size());
    const size_t begin = code_point_offset(s, 0, from);
    return runtime.slice(object, begin, code_point_offset(s, begin, to - from));
  }
  if (object.is(Kind::range)) {
    const Range& r = object.range();
    const __int128 stop_at = r.start + static_cast<__int128>(to) * r.step, step_by = static_cast<__int128>(r.step) * by;
    if (stop_at < INT64_MIN || stop_at > INT64_MAX || step_by < INT64_MIN || step_by > INT64_MAX) {
      throw Fault{"a slice of a range beyond 64 bits"};
    }
    // An empty one at an end may begin outside.
    const __int128 start_at = r.start + static_cast<__int128>(from) * r.step;
    if (start_at < INT64_MIN || start_at > INT64_MAX) throw Fault{"a slice of a range beyond 64 bits"};
    return runtime.range(static_cast<int64_t>(start_at), static_cast<int64_t>(stop_at), static_cast<int64_t>(step_by));
  }
  std::vector<Value> source = iterate(runtime, object), out;
  // from, to lie in [-1, size]; by may be anything, so stop before the sum overflows.
  for (int64_t i = from; by > 0 ? i < to : i > to;) {
    out.push_back(source[static_cast<size_t>(i)]);
    if (by > 0 ? by > to - i : -(by + 1) >= i - to) break;
    i += by;
  }
  if (!object.is_string()) return runtime.items(object.is(Kind::tuple) ? Kind::tuple : Kind::list, std::move(out));
  TextBuilder text;
  for (const Value& c : out) text.append(c.text());
  return runtime.string(std::move(text));
}

std::vector<const Value*> bind(std::string_view function, const Args& args, std::initializer_list<const char*> names,
                               size_t required) {
  std::vector<const Value*> out(names.size(), nullptr);
  if (args.positional.size() > names.size()) {
    throw Fault{
        fmt::format("{}() takes at most {} arguments ({} given)", function, names.size(), args.positional.size())};
  }
  for (size_t i = 0; i < args.positional.size(); ++i) out[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto it = std::find_if(names.begin(), names.end(), [&key = name](const char* n) { return key == n; });
    if (it == names.end()) {
      throw Fault{fmt::format("{}() got an unexpected keyword argument '{}'", function, printable(name))};
    }
    const auto i = static_cast<size_t>(it - names.begin());
    if (out[i] != nullptr) throw Fault{fmt::format("{}() got multiple values for argument '{}'", function, name)};
    out[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (out[i] == nullptr) {
      throw Fault{fmt::format("{}() is missing its argument '{}'", function, *(names.begin() + i))};
    }
  }
  return out;
}

}  // namespace graft::jinja
