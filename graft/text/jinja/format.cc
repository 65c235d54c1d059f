// '…' % values and '…'.format(…). Only values reach the text: fields of objects are looked up as templates look them
// up.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "graft/base/error.h"
#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

constexpr int64_t kMaxWidth = 100000;

struct Spec {
  std::string fill = " ";
  char align = 0, sign = '-', type = 0;
  bool alternate = false, zero = false, comma = false, underscore = false;
  int64_t width = 0, precision = -1;
};

int64_t read_number(std::string_view text, size_t& i) {
  int64_t n = 0;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    n = n * 10 + (text[i] - '0');
    if (n > kMaxWidth) throw Fault{"a width or precision beyond the limit of 100000"};
  }
  return n;
}

void pad(TextBuilder& out, const Text& body, const Spec& spec, char default_align) {
  const int64_t missing = spec.width - count_code_points(body.bytes);
  if (missing <= 0) {
    out.append(body);
    return;
  }
  const char align = spec.align != 0 ? spec.align : default_align;
  if (align == '=') {
    const size_t sign = !body.bytes.empty() && (body.bytes[0] == '-' || body.bytes[0] == '+' || body.bytes[0] == ' ');
    out.append(body, 0, sign);
    for (int64_t i = 0; i < missing; ++i) out.literal(spec.fill);
    out.append(body, sign, body.bytes.size());
    return;
  }
  const int64_t left = align == '<' ? 0 : align == '>' ? missing : missing / 2;
  for (int64_t i = 0; i < left; ++i) out.literal(spec.fill);
  out.append(body);
  for (int64_t i = left; i < missing; ++i) out.literal(spec.fill);
}

std::string signed_digits(bool negative, char sign, const std::string& digits) {
  if (negative) return "-" + digits;
  return sign == '+' || sign == ' ' ? sign + digits : digits;
}

std::string group(const std::string& digits, char mark) {
  const size_t point = std::min(digits.find('.'), digits.size());
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && i < point && (point - i) % 3 == 0) out += mark;
    out += digits[i];
  }
  return out;
}

std::string show_integer(const Value& value, const Spec& spec) {
  std::string digits;
  bool negative = false;
  if (value.is(Kind::big)) {
    digits = value.big().to_string();
    negative = digits[0] == '-';
    if (negative) digits.erase(0, 1);
    if (spec.type == 'x' || spec.type == 'X' || spec.type == 'o' || spec.type == 'b') {
      throw Fault{"an integer beyond 64 bits in another base than ten is not supported"};
    }
  } else {
    negative = value.integer() < 0;
    const uint64_t n = negative ? 0 - static_cast<uint64_t>(value.integer()) : static_cast<uint64_t>(value.integer());
    switch (spec.type) {
      case 'x': digits = fmt::format("{:x}", n); break;
      case 'X': digits = fmt::format("{:X}", n); break;
      case 'o': digits = fmt::format("{:o}", n); break;
      case 'b': digits = fmt::format("{:b}", n); break;
      default: digits = std::to_string(n);
    }
    if (spec.alternate && spec.type != 0 && spec.type != 'd') digits = std::string("0") + spec.type + digits;
  }
  if (spec.comma || spec.underscore) digits = group(digits, spec.comma ? ',' : '_');
  return signed_digits(negative, spec.sign, digits);
}

std::string show_real_as(double value, const Spec& spec) {
  const char type = spec.type == '%' ? 'f' : spec.type;
  if (spec.type == '%') value *= 100;
  std::string digits;
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::fabs(value);
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
    if (type == 'F' || type == 'E' || type == 'G') digits = digits == "nan" ? "NAN" : "INF";
  } else if (type == 0 && spec.precision < 0) {
    digits = show_real(size);
  } else {
    const int64_t precision = spec.precision < 0 ? 6 : spec.precision;
    if (precision > 1000) throw Fault{"a precision beyond the limit of 1000"};
    const char format[] = {'%',
                           spec.alternate ? '#' : '.',
                           spec.alternate ? '.' : '*',
                           spec.alternate ? '*' : (type == 0 ? 'g' : type),
                           spec.alternate ? (type == 0 ? 'g' : type) : '\0',
                           '\0'};
    digits.resize(2048);
    const int written = std::snprintf(digits.data(), digits.size(), format, static_cast<int>(precision), size);
    digits.resize(static_cast<size_t>(std::clamp(written, 0, 2047)));
    if (type == 0 && digits.find_first_of(".e") == std::string::npos) digits += ".0";
  }
  if (spec.comma || spec.underscore) digits = group(digits, spec.comma ? ',' : '_');
  return signed_digits(negative, spec.sign, digits) + (spec.type == '%' ? "%" : "");
}

Text& scratch(Text& text, std::string bytes) {
  text.bytes = std::move(bytes);
  text.marks.clear();
  return text;
}

// What stands after the colon of {name:…}.
Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t i = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  size_t after = 0;
  if (!text.empty()) next_code_point(text, after);
  if (after > 0 && after < text.size() && is_align(text[after])) {
    spec.fill = std::string(text.substr(0, after));
    spec.align = text[after];
    i = after + 1;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    i = 1;
  }
  if (i < text.size() && (text[i] == '+' || text[i] == '-' || text[i] == ' ')) spec.sign = text[i++];
  if (i < text.size() && text[i] == '#') spec.alternate = true, ++i;
  if (i < text.size() && text[i] == '0') {
    if (spec.align == 0) spec.align = '=', spec.fill = "0";
    ++i;
  }
  spec.width = read_number(text, i);
  if (i < text.size() && text[i] == ',') spec.comma = true, ++i;
  if (i < text.size() && text[i] == '_') spec.underscore = true, ++i;
  if (i < text.size() && text[i] == '.') {
    ++i;
    spec.precision = read_number(text, i);
  }
  if (i < text.size()) spec.type = text[i++];
  if (i < text.size() ||
      (spec.type != 0 && std::string_view("bdoxXnsfFeEgG%").find(spec.type) == std::string_view::npos)) {
    throw Fault{fmt::format("invalid format '{}'", printable(text))};
  }
  return spec;
}

void put_value(Runtime& runtime, TextBuilder& out, const Value& value, const Spec& spec) {
  Text text;
  const bool real_type = spec.type != 0 && std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos;
  if (value.is(Kind::real) || (real_type && value.is_number())) {
    if (spec.type != 0 && !real_type) throw Fault{fmt::format("unknown format code '{}' for a float", spec.type)};
    pad(out, scratch(text, show_real_as(as_real(value), spec)), spec, '>');
  } else if (value.is_number() && !(value.is(Kind::boolean) && spec.type == 0)) {
    if (spec.type == 's') throw Fault{"unknown format code 's' for an integer"};
    pad(out, scratch(text, show_integer(value, spec)), spec, '>');
  } else {
    if (spec.type != 0 && spec.type != 's') {
      throw Fault{fmt::format("unknown format code '{}' for a {}", spec.type, type_name(value))};
    }
    const Value shown = to_text(runtime, value);
    const std::string& s = shown.str();
    const size_t end = spec.precision < 0 ? s.size() : code_point_offset(s, 0, spec.precision);
    TextBuilder part;
    part.append(shown.text(), 0, end);
    text.bytes = std::move(part.bytes());
    text.marks = std::move(part.marks());
    pad(out, text, spec, '<');
  }
  runtime.copied(out.size());
  runtime.check_string(static_cast<int64_t>(out.size()));
}

// name.attribute[key]…, the part of a replacement field before ! and :
Value field(Runtime& runtime, std::string_view name, const Args& args, int64_t& automatic) {
  size_t i = 0;
  while (i < name.size() && name[i] != '.' && name[i] != '[') ++i;
  const std::string_view first = name.substr(0, i);
  Value value;
  const bool number = !first.empty() && std::all_of(first.begin(), first.end(), is_digit);
  if (first.empty() || number) {
    size_t at = 0;
    const int64_t index = first.empty() ? automatic++ : read_number(first, at);
    if (index >= static_cast<int64_t>(args.positional.size())) {
      throw Fault{fmt::format("replacement index {} out of range for positional arguments", index)};
    }
    value = args.positional[static_cast<size_t>(index)];
  } else {
    const auto it = std::find_if(args.named.begin(), args.named.end(), [&](const auto& n) { return n.first == first; });
    if (it == args.named.end()) throw Fault{fmt::format("format() has no argument '{}'", printable(first))};
    value = it->second;
  }
  while (i < name.size()) {
    const bool bracket = name[i] == '[';
    const size_t begin = ++i;
    while (i < name.size() && (bracket ? name[i] != ']' : name[i] != '.' && name[i] != '[')) ++i;
    const std::string_view part = name.substr(begin, i - begin);
    if (part.empty()) throw Fault{"empty attribute in a format string"};
    if (bracket && i++ >= name.size()) throw Fault{"missing ']' in a format string"};
    size_t at = 0;
    const bool index = bracket && std::all_of(part.begin(), part.end(), is_digit);
    const Value key = index ? Value(read_number(part, at)) : runtime.string(std::string(part));
    value = bracket ? item(runtime, value, key) : attribute(runtime, value, key);
  }
  return value;
}

}  // namespace

Value brace_format(Runtime& runtime, const Text& format, Args& args) {
  const std::string& s = format.bytes;
  TextBuilder out;
  int64_t automatic = 0;
  runtime.scanned(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t brace = std::min(s.find_first_of("{}", i), s.size());
    out.append(format, i, brace);
    i = brace;
    if (i >= s.size()) break;
    if (i + 1 < s.size() && s[i + 1] == s[i]) {
      out.append(format, i, i + 1);
      i += 2;
      continue;
    }
    if (s[i] == '}') throw Fault{"single '}' encountered in format string"};
    size_t end = i + 1;
    for (int depth = 1; end < s.size(); ++end) {
      depth += (s[end] == '{') - (s[end] == '}');
      if (depth == 0) break;
    }
    if (end >= s.size()) throw Fault{"'{' without '}' in format string"};
    const std::string_view inside(s.data() + i + 1, end - i - 1);
    if (inside.find('{') != std::string_view::npos) {
      throw Fault{"fields inside a format specification are not supported"};
    }
    const size_t colon = std::min(inside.find(':'), inside.size());
    std::string_view name = inside.substr(0, colon);
    const std::string_view spec = colon < inside.size() ? inside.substr(colon + 1) : std::string_view();
    char conversion = 0;
    if (const size_t bang = name.find('!'); bang != std::string_view::npos) {
      if (name.size() != bang + 2 || (name[bang + 1] != 'r' && name[bang + 1] != 's' && name[bang + 1] != 'a')) {
        throw Fault{"expected !r or !s in a format string"};
      }
      conversion = name[bang + 1];
      name = name.substr(0, bang);
    }
    Value value = field(runtime, name, args, automatic);
    if (conversion == 's') value = to_text(runtime, value);
    if (conversion == 'r' || conversion == 'a') {
      TextBuilder shown;
      represent(runtime, shown, value);
      value = runtime.string(std::move(shown));
    }
    put_value(runtime, out, value, parse_spec(spec));
    i = end + 1;
  }
  return runtime.string(std::move(out));
}

Value percent_format(Runtime& runtime, const Text& format, const Value& arguments) {
  const std::string& s = format.bytes;
  const std::vector<Value> values =
      arguments.is(Kind::tuple) ? arguments.items().values : std::vector<Value>{arguments};
  size_t used = 0;
  bool by_name = false;
  const auto next = [&]() -> const Value& {
    if (used >= values.size()) throw Fault{"not enough arguments for format string"};
    return values[used++];
  };
  TextBuilder out;
  runtime.scanned(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t percent = std::min(s.find('%', i), s.size());
    out.append(format, i, percent);
    i = percent + 1;
    if (percent >= s.size()) break;
    if (i >= s.size()) throw Fault{"incomplete format"};
    Spec spec;
    std::optional<Value> named;
    if (s[i] == '(') {
      const size_t close = s.find(')', i);
      if (close == std::string::npos) throw Fault{"incomplete format key"};
      if (!arguments.is(Kind::dict)) throw Fault{"format requires a mapping"};
      const Value* found = arguments.dict().find(std::string_view(s).substr(i + 1, close - i - 1));
      if (found == nullptr) {
        throw Fault{fmt::format("format key '{}' is missing", printable(s.substr(i + 1, close - i - 1)))};
      }
      named = *found;
      by_name = true;
      i = close + 1;
    }
    for (; i < s.size() && std::string_view("-+ #0").find(s[i]) != std::string_view::npos; ++i) {
      if (s[i] == '-') spec.align = '<';
      if (s[i] == '+' || (s[i] == ' ' && spec.sign != '+')) spec.sign = s[i];
      if (s[i] == '#') spec.alternate = true;
      if (s[i] == '0') spec.zero = true;
    }
    spec.width = read_number(s, i);
    if (i < s.size() && s[i] == '.') spec.precision = read_number(s, ++i);
    if (i >= s.size()) throw Fault{"incomplete format"};
    const char type = s[i++];
    if (type == '%') {
      out.literal("%");
      continue;
    }
    const Value value = named ? *named : next();
    if (type == 's' || type == 'r') {
      Value shown = value;
      if (type == 'r') {
        TextBuilder text;
        represent(runtime, text, value);
        shown = runtime.string(std::move(text));
      }
      spec.type = 's';
      put_value(runtime, out, to_text(runtime, shown), [&] {
        Spec left = spec;
        if (left.align == 0) left.align = '>';
        return left;
      }());
      continue;
    }
    if (std::string_view("diuxXofFeEgG").find(type) == std::string_view::npos) {
      throw Fault{fmt::format("unsupported format character '{}'", printable(std::string(1, type)))};
    }
    if (value.is_undefined()) fail_undefined(value);
    if (!value.is_number()) {
      throw Fault{fmt::format("%{} format: a number is required, not {}", type, type_name(value))};
    }
    if (spec.zero && spec.align == 0) spec.align = '=', spec.fill = "0";
    const bool integer = std::string_view("diuxXo").find(type) != std::string_view::npos;
    spec.type = type == 'i' || type == 'u' ? 'd' : type;
    if (integer && value.is(Kind::real)) {
      if (!(std::fabs(value.real()) < 9e18)) throw Fault{"a float too large for an integer format"};
      put_value(runtime, out, Value(static_cast<int64_t>(value.real())), spec);
    } else {
      put_value(runtime, out, value.is(Kind::boolean) ? Value(value.integer()) : value, spec);
    }
  }
  if (!by_name && used < values.size() && !arguments.is(Kind::dict) && !arguments.is(Kind::list)) {
    throw Fault{"not all arguments converted during string formatting"};
  }
  return runtime.string(std::move(out));
}

}  // namespace graft::jinja
