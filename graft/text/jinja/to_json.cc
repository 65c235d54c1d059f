#include <fmt/format.h>

#include <algorithm>

#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

// json.dumps of Python: /, DEL and U+2028 stay as they are, control characters become \u00XX.
void put_text(Runtime& runtime, TextBuilder& out, const Text& text, bool ensure_ascii) {
  const std::string& s = text.bytes;
  runtime.scanned(s.size());
  std::string escaped;
  escaped.reserve(s.size() + 2);
  for (size_t i = 0; i < s.size();) {
    const char c = s[i];
    if (static_cast<unsigned char>(c) >= 0x80 || c == 0x7f) {
      size_t next = i;
      const int32_t point = next_code_point(s, next);
      if (!ensure_ascii) {
        escaped.append(s, i, next - i);
      } else if (point < 0x10000) {
        escaped += fmt::format("\\u{:04x}", point);
      } else {
        escaped +=
            fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff));
      }
      i = next;
      continue;
    }
    switch (c) {
      case '"': escaped += "\\\""; break;
      case '\\': escaped += "\\\\"; break;
      case '\n': escaped += "\\n"; break;
      case '\r': escaped += "\\r"; break;
      case '\t': escaped += "\\t"; break;
      case '\b': escaped += "\\b"; break;
      case '\f': escaped += "\\f"; break;
      default:
        if (c < 0x20) {
          escaped += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          escaped += c;
        }
    }
    ++i;
  }
  out.literal("\"");
  out.derived(escaped, text);
  out.literal("\"");
}

std::string show_number(const Value& value) {
  if (value.is(Kind::integer)) return std::to_string(value.integer());
  if (value.is(Kind::big)) return value.big().to_string();
  const std::string shown = show_real(value.real());
  return shown == "nan" ? "NaN" : shown == "inf" ? "Infinity" : shown == "-inf" ? "-Infinity" : shown;
}

void put_key(Runtime& runtime, TextBuilder& out, const Value& key, const JsonStyle& style) {
  if (key.is_string()) return put_text(runtime, out, key.text(), style.ensure_ascii);
  std::string shown;
  switch (key.kind()) {
    case Kind::none: shown = "null"; break;
    case Kind::boolean: shown = key.boolean() ? "true" : "false"; break;
    case Kind::integer:
    case Kind::big:
    case Kind::real: shown = show_number(key); break;
    default: throw Fault{fmt::format("tojson: a key must be a string, a number or none, not {}", type_name(key))};
  }
  out.literal("\"" + shown + "\"");
}

void new_line(TextBuilder& out, const JsonStyle& style, int depth) {
  if (!style.pretty) return;
  out.literal("\n");
  for (int i = 0; i < depth; ++i) out.literal(style.indent);
}

}  // namespace

void to_json(Runtime& runtime, TextBuilder& out, const Value& value, const JsonStyle& style, int depth) {
  runtime.step();
  runtime.check_string(static_cast<int64_t>(out.size()));
  switch (value.kind()) {
    case Kind::none: out.literal("null"); return;
    case Kind::boolean: out.literal(value.boolean() ? "true" : "false"); return;
    case Kind::integer:
    case Kind::big:
    case Kind::real: out.literal(show_number(value)); return;
    case Kind::string: put_text(runtime, out, value.text(), style.ensure_ascii); return;
    case Kind::list:
    case Kind::tuple: {
      const auto& values = value.items().values;
      out.literal("[");
      for (size_t i = 0; i < values.size(); ++i) {
        if (i > 0) out.literal(style.item_separator);
        new_line(out, style, depth + 1);
        to_json(runtime, out, values[i], style, depth + 1);
      }
      if (!values.empty()) new_line(out, style, depth);
      out.literal("]");
      return;
    }
    case Kind::dict: {
      std::vector<std::pair<Value, Value>> sorted;
      if (style.sort_keys) {
        sorted = value.dict().entries;
        std::stable_sort(sorted.begin(), sorted.end(),
                         [&](const auto& a, const auto& b) { return less(runtime, a.first, b.first); });
      }
      const auto& entries = style.sort_keys ? sorted : value.dict().entries;
      out.literal("{");
      for (size_t i = 0; i < entries.size(); ++i) {
        if (i > 0) out.literal(style.item_separator);
        new_line(out, style, depth + 1);
        put_key(runtime, out, entries[i].first, style);
        out.literal(style.key_separator);
        to_json(runtime, out, entries[i].second, style, depth + 1);
      }
      if (!entries.empty()) new_line(out, style, depth);
      out.literal("}");
      return;
    }
    case Kind::undefined: throw Fault{fmt::format("tojson: {}", value.undefined_message())};
    default: throw Fault{fmt::format("tojson: a {} is not JSON serializable", type_name(value))};
  }
}

}  // namespace graft::jinja
