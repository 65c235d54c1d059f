// Filters of strings and numbers. A filter that makes text from text as a whole (upper, indent, …) gives the mark of
// outside data to all of it; the ones that only cut and join keep it exact.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "graft/text/jinja/filters.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

bool flag_or(const Value* value, bool otherwise) { return value == nullptr ? otherwise : truthy(*value); }

// For filters that do not make text of other values.
const Value& need_text(const Value& value, std::string_view filter) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) throw Fault{fmt::format("{}: a string is required, not {}", filter, type_name(value))};
  return value;
}

template <std::string (*kMap)(std::string_view)>
Value map_case(Runtime& runtime, const Value& value, const Args& args) {
  bind("a case filter", args, {});
  const Value text = to_text(runtime, value);
  runtime.scanned(text.str().size() * 2);
  return runtime.derived(kMap(text.str()), text.text());
}

// Jinja's title: words begin after white space and brackets, so "they're" stays one word.
std::string title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto word = [&](size_t end) {
    if (end <= begin) return;
    size_t first = begin;
    next_code_point(text, first);
    out += to_upper(text.substr(begin, first - begin));
    out += to_lower(text.substr(first, end - first));
  };
  for (size_t i = 0; i < text.size();) {
    size_t next = i;
    const int32_t c = next_code_point(text, next);
    if (is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<') {
      word(i);
      out.append(text.substr(i, next - i));
      begin = next;
    }
    i = next;
  }
  word(text.size());
  return out;
}

Value as_markup(Runtime& runtime, const Value& text, std::string bytes) {
  Value out = runtime.derived(std::move(bytes), text.text());
  static_cast<Text&>(*out.object()).markup = true;
  return out;
}

Value filter_escape(Runtime& runtime, const Value& value, const Args& args) {
  bind("escape", args, {});
  const Value text = to_text(runtime, value);
  runtime.scanned(text.str().size());
  return text.text().markup ? text : as_markup(runtime, text, escape_markup(text.str()));
}

Value filter_force_escape(Runtime& runtime, const Value& value, const Args& args) {
  bind("forceescape", args, {});
  const Value text = to_text(runtime, value);
  runtime.scanned(text.str().size());
  return as_markup(runtime, text, escape_markup(text.str()));
}

Value filter_safe(Runtime& runtime, const Value& value, const Args& args) {
  bind("safe", args, {});
  const Value text = to_text(runtime, value);
  TextBuilder copy;
  copy.append(text.text());
  runtime.copied(copy.size());
  Value out = runtime.string(std::move(copy));
  static_cast<Text&>(*out.object()).markup = true;
  return out;
}

Value filter_string(Runtime& runtime, const Value& value, const Args& args) {
  bind("string", args, {});
  return to_text(runtime, value);
}

Value filter_trim(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("trim", args, {"chars"});
  return strip(runtime, to_text(runtime, value), given[0], true, true);
}

Value filter_replace(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("replace", args, {"old", "new", "count"}, 2);
  const int64_t count = given[2] == nullptr || given[2]->is_none() ? -1 : as_index(*given[2], "count");
  return replace(runtime, to_text(runtime, value), to_text(runtime, *given[0]), to_text(runtime, *given[1]), count);
}

Value filter_format(Runtime& runtime, const Value& value, const Args& args) {
  const Value text = to_text(runtime, value);
  if (!args.named.empty() && !args.positional.empty()) {
    throw Fault{"format takes positional or named arguments, not both"};
  }
  if (args.named.empty()) return percent_format(runtime, text.text(), runtime.tuple(args.positional));
  auto dict = std::make_shared<Dict>();
  for (const auto& [name, v] : args.named) dict->set(runtime.string(name), v);
  return percent_format(runtime, text.text(), runtime.dict(std::move(dict)));
}

Value filter_indent(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("indent", args, {"width", "first", "blank"});
  const bool first = flag_or(given[1], false), blank = flag_or(given[2], false);
  std::string indent(4, ' ');
  if (given[0] != nullptr && given[0]->is_string()) {
    indent = given[0]->str();
  } else if (given[0] != nullptr) {
    const int64_t width = as_index(*given[0], "width");
    runtime.check_string(width);
    indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const Value& text = need_text(value, "indent");
  TextBuilder out;
  std::vector<Value> lines = split_lines(runtime, text, false);
  if (lines.empty() || text.str().back() == '\n') lines.push_back(runtime.string(std::string()));
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i == 0 ? first : blank || !lines[i].str().empty();
    if (i > 0) out.literal("\n");
    if (indented) out.literal(indent);
    out.append(lines[i].text());
    runtime.copied(indent.size());
    runtime.check_string(static_cast<int64_t>(out.size()));
  }
  return runtime.string(std::move(out));
}

Value filter_center(Runtime& runtime, const Value& value, const Args& args) {
  const int64_t width = number_or(bind("center", args, {"width"})[0], 80, "width");
  Args method;
  method.positional.push_back(Value(width));
  return call(runtime, *member(runtime, to_text(runtime, value), "center"), method);
}

Value filter_wordcount(Runtime& runtime, const Value& value, const Args& args) {
  bind("wordcount", args, {});
  const Value text = to_text(runtime, value);
  runtime.scanned(text.str().size());
  int64_t count = 0;
  bool inside = false;
  for (size_t i = 0; i < text.str().size();) {
    const int32_t c = next_code_point(text.str(), i);
    const bool word = is_letter(c) || is_numeric(c) || c == '_';
    count += word && !inside;
    inside = word;
  }
  return Value(count);
}

Value filter_truncate(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t wanted = number_or(given[0], 255, "length"), leeway = number_or(given[3], 5, "leeway");
  const Value end = given[2] == nullptr ? runtime.string("...") : to_text(runtime, *given[2]);
  const int64_t size = length(runtime, value), end_size = length(runtime, end);
  if (wanted < end_size) throw Fault{fmt::format("truncate: expected length >= {}, got {}", end_size, wanted)};
  if (leeway < 0) throw Fault{fmt::format("truncate: expected leeway >= 0, got {}", leeway)};
  if (size <= wanted || size - wanted <= leeway) return value;
  const Value& text = need_text(value, "truncate");
  size_t cut = code_point_offset(text.str(), 0, wanted - end_size);
  if (!flag_or(given[1], false)) {
    if (const size_t space = text.str().substr(0, cut).rfind(' '); space != std::string::npos) cut = space;
  }
  TextBuilder out;
  out.append(text.text(), 0, cut);
  out.append(end.text());
  return runtime.string(std::move(out));
}

Value filter_striptags(Runtime& runtime, const Value& value, const Args& args) {
  bind("striptags", args, {});
  const Value text = to_text(runtime, value);
  const std::string& s = text.str();
  runtime.scanned(s.size() * 4);
  const auto without = [](std::string from, std::string_view open, std::string_view close) {
    std::string kept;
    size_t i = 0;
    for (;;) {
      const size_t begin = from.find(open, i), end = begin == std::string::npos ? begin : from.find(close, begin);
      if (end == std::string::npos) return kept + from.substr(i);
      kept += from.substr(i, begin - i);
      i = end + close.size();
    }
  };
  std::string plain = without(without(s, "<!--", "-->"), "<", ">");
  std::string spaced;  // runs of white space become one space
  for (size_t i = skip_space(plain, 0, plain.size()); i < plain.size();) {
    const size_t next = skip_space(plain, i, plain.size());
    if (next > i) {
      if (next < plain.size()) spaced += ' ';
      i = next;
    } else {
      size_t after = i;
      next_code_point(plain, after);
      spaced.append(plain, i, after - i);
      i = after;
    }
  }
  static constexpr std::pair<std::string_view, char> kEntities[] = {{"&lt;", '<'},  {"&gt;", '>'},   {"&quot;", '"'},
                                                                    {"&#34;", '"'}, {"&#39;", '\''}, {"&amp;", '&'}};
  std::string out;
  for (size_t i = 0; i < spaced.size();) {
    const auto* entity = std::find_if(std::begin(kEntities), std::end(kEntities),
                                      [&](const auto& e) { return spaced.compare(i, e.first.size(), e.first) == 0; });
    out += entity == std::end(kEntities) ? spaced[i] : entity->second;
    i += entity == std::end(kEntities) ? 1 : entity->first.size();
  }
  return runtime.derived(std::move(out), text.text());
}

std::string quote_url(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       c == '.' || c == '-' || c == '~' || (!query && c == '/');
    if (plain) {
      out += c;
    } else {
      out += query && c == ' ' ? "+" : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Value filter_urlencode(Runtime& runtime, const Value& value, const Args& args) {
  bind("urlencode", args, {});
  if (!value.is(Kind::dict) && !value.is_sequence()) {
    const Value text = to_text(runtime, value);
    runtime.scanned(text.str().size() * 3);
    return runtime.derived(quote_url(text.str(), false), text.text());
  }
  TextBuilder out;  // a query string of pairs
  const auto put = [&](const Value& key, const Value& v) {
    if (out.size() > 0) out.literal("&");
    const Value name = to_text(runtime, key), text = to_text(runtime, v);
    out.derived(quote_url(name.str(), true), name.text());
    out.literal("=");
    out.derived(quote_url(text.str(), true), text.text());
    runtime.scanned(name.str().size() + text.str().size());
    runtime.check_string(static_cast<int64_t>(out.size()));
  };
  if (value.is(Kind::dict)) {
    for (const auto& [key, v] : value.dict().entries) put(key, v);
  } else {
    for (const Value& pair : value.items().values) {
      const std::vector<Value> both = iterate(runtime, pair);
      if (both.size() != 2) throw Fault{fmt::format("urlencode: expected pairs, found {} values", both.size())};
      put(both[0], both[1]);
    }
  }
  return runtime.string(std::move(out));
}

// Lines of at most `width` characters, broken at spaces; longer words are cut.
Value filter_wordwrap(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("wordwrap", args, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  const int64_t width = number_or(given[0], 79, "width");
  if (width <= 0) throw Fault{"wordwrap: the width must be positive"};
  const bool cut = flag_or(given[1], true);
  const std::string wrap = given[2] == nullptr || given[2]->is_none() ? "\n" : to_text(runtime, *given[2]).str();
  const Value& text = need_text(value, "wordwrap");
  std::string out;
  bool first_line = true;
  for (const Value& line : split_lines(runtime, text, false)) {
    if (!first_line) out += wrap;
    first_line = false;
    const std::string& s = line.str();
    int64_t column = 0;
    size_t begin = 0;
    std::string gap;
    while (begin < s.size()) {
      const size_t word = skip_space(s, begin, s.size());
      gap = s.substr(begin, word - begin);
      size_t end = word;
      while (end < s.size()) {
        size_t next = end;
        if (is_space(next_code_point(s, next))) break;
        end = next;
      }
      if (word == end) break;
      std::string rest = s.substr(word, end - word);
      int64_t size = count_code_points(rest);
      const int64_t gap_size = count_code_points(gap);
      if (column > 0 && column + gap_size + size > width) {
        if (cut && size > width && column + gap_size < width) {
          const size_t part = code_point_offset(rest, 0, width - column - gap_size);
          out += gap + rest.substr(0, part);
          rest.erase(0, part);
          size = count_code_points(rest);
        }
        out += wrap;
        column = 0;
      } else {
        out += gap;
        column += gap_size;
      }
      while (cut && column + size > width) {
        const size_t part = code_point_offset(rest, 0, std::max<int64_t>(width - column, 1));
        out += rest.substr(0, part) + wrap;
        rest.erase(0, part);
        runtime.copied(rest.size());
        runtime.check_string(static_cast<int64_t>(out.size()));
        size = count_code_points(rest);
        column = 0;
      }
      out += rest;
      column += size;
      begin = end;
    }
    runtime.scanned(s.size() * 2);
    runtime.check_string(static_cast<int64_t>(out.size()));
  }
  return runtime.derived(std::move(out), text.text());
}

// ---- numbers

Value filter_abs(Runtime& runtime, const Value& value, const Args& args) {
  bind("abs", args, {});
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) throw Fault{fmt::format("bad operand type for abs(): '{}'", type_name(value))};
  if (value.is(Kind::real)) return Value(std::fabs(value.real()));
  return compare_numbers(value, Value(int64_t{0})) < 0 ? negate(runtime, value)
         : value.is(Kind::boolean)                     ? Value(value.integer())
                                                       : value;
}

// The text as Python's int(text, base) reads it, if it does.
std::optional<Value> read_int(Runtime& runtime, std::string_view text, int64_t base) {
  const size_t begin = skip_space(text, 0, text.size());
  text = text.substr(begin, skip_space_back(text, begin, text.size()) - begin);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int64_t marked = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (marked != 0 && (marked == base || base == 0)) {
      base = marked;
      text.remove_prefix(2);
    }
  }
  if (base == 0) base = 10;
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_') continue;
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                               : 99;
    if (digit >= base) return std::nullopt;
    digits += c;
  }
  if (digits.empty()) return std::nullopt;
  if (base == 10) return parse_integer(runtime, (negative ? "-" : "") + digits);
  Value out(int64_t{0});
  runtime.step(static_cast<int64_t>(digits.size()));
  for (const char c : digits) {
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    out = arithmetic(runtime, Operator::add, arithmetic(runtime, Operator::multiply, out, Value(base)),
                     Value(int64_t{digit}));
  }
  return negative ? negate(runtime, out) : out;
}

std::optional<double> read_real(std::string_view text) {
  const size_t begin = skip_space(text, 0, text.size());
  std::string s(text.substr(begin, skip_space_back(text, begin, text.size()) - begin));
  if (s.empty() || s.find_first_of("xXpP") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(s.c_str(), &end);
  return *end == '\0' && static_cast<size_t>(end - s.c_str()) == s.size() ? std::optional<double>(value) : std::nullopt;
}

std::optional<Value> real_to_int(Runtime& runtime, double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) < 9e18) return Value(static_cast<int64_t>(value));
  return parse_integer(runtime, fmt::format("{:.0f}", std::trunc(value)));
}

Value filter_int(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("int", args, {"default", "base"});
  const Value otherwise = given[0] == nullptr ? Value(int64_t{0}) : *given[0];
  const int64_t base = number_or(given[1], 10, "base");
  if (base != 0 && (base < 2 || base > 36)) throw Fault{"int: the base must be 0 or lie between 2 and 36"};
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::real)) return real_to_int(runtime, value.real()).value_or(otherwise);
  if (value.is_int()) return Value(value.integer());
  if (value.is(Kind::big)) return value;
  if (!value.is_string()) return otherwise;
  if (auto whole = read_int(runtime, value.str(), base)) return *whole;
  if (const auto real = read_real(value.str())) return real_to_int(runtime, *real).value_or(otherwise);
  return otherwise;
}

Value filter_float(Runtime&, const Value& value, const Args& args) {
  const auto given = bind("float", args, {"default"});
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_number()) return Value(as_real(value));
  if (value.is_string()) {
    if (const auto real = read_real(value.str())) return Value(*real);
  }
  return given[0] == nullptr ? Value(0.0) : *given[0];
}

Value filter_round(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("round", args, {"precision", "method"});
  const int64_t precision = number_or(given[0], 0, "precision");
  const std::string method = given[1] == nullptr ? "common" : to_text(runtime, *given[1]).str();
  if (method != "common" && method != "ceil" && method != "floor") {
    throw Fault{"round: method must be common, ceil or floor"};
  }
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) throw Fault{fmt::format("round: a number is required, not {}", type_name(value))};
  const double x = as_real(value);
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    return Value((method == "ceil" ? std::ceil(x * scale) : std::floor(x * scale)) / scale);
  }
  if (!value.is(Kind::real) && precision >= 0) return value.is(Kind::boolean) ? Value(value.integer()) : value;
  if (precision > 300 || !std::isfinite(x)) return Value(x);
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    const double rounded = std::nearbyint(x / scale) * scale;
    return value.is(Kind::real) ? Value(rounded) : Value(static_cast<int64_t>(rounded));
  }
  // Python rounds the decimal text, half to even.
  return Value(std::strtod(fmt::format("{:.{}f}", x, precision).c_str(), nullptr));
}

Value filter_filesizeformat(Runtime& runtime, const Value& value, const Args& args) {
  const bool binary = flag_or(bind("filesizeformat", args, {"binary"})[0], false);
  const auto read = value.is_string() ? read_real(value.str()) : std::nullopt;
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number() && !read) {
    throw Fault{fmt::format("filesizeformat: a number is required, not {}", type_name(value))};
  }
  const double bytes = read ? *read : as_real(value);
  if (!std::isfinite(bytes)) throw Fault{"filesizeformat: a finite number is required"};
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return runtime.string("1 Byte");
  if (bytes < base) return runtime.string(fmt::format("{} Bytes", static_cast<int64_t>(bytes)));
  double unit = base;
  std::string_view name;
  for (const char* prefix : {"k", "M", "G", "T", "P", "E", "Z", "Y"}) {
    name = prefix;
    unit *= base;
    if (bytes < unit) break;
  }
  const std::string letter = binary && name == "k" ? "K" : std::string(name);
  return runtime.string(fmt::format("{:.1f} {}{}B", base * bytes / unit, letter, binary ? "i" : ""));
}

Value filter_tojson(Runtime& runtime, const Value& value, const Args& args) {
  const auto given = bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = flag_or(given[0], false);
  style.sort_keys = flag_or(given[3], false);
  if (given[1] != nullptr && !given[1]->is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (given[1]->is_string()) {
      style.indent = given[1]->str();
      if (style.indent.size() > 1000) throw Fault{"tojson: an indent longer than the limit of 1000"};
    } else {
      const int64_t width = as_index(*given[1], "indent");
      if (width > 1000) throw Fault{"tojson: an indent longer than the limit of 1000"};
      style.indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (given[2] != nullptr && !given[2]->is_none()) {
    const std::vector<Value> both = iterate(runtime, *given[2]);
    if (both.size() != 2 || !both[0].is_string() || !both[1].is_string()) {
      throw Fault{"tojson: separators must be two strings"};
    }
    style.item_separator = both[0].str();
    style.key_separator = both[1].str();
  }
  TextBuilder out;
  to_json(runtime, out, value, style);
  return runtime.string(std::move(out));
}

}  // namespace

std::span<const FilterRow> text_filters() {
  static constexpr FilterRow kRows[] = {
      {"upper", map_case<to_upper>},
      {"lower", map_case<to_lower>},
      {"title", map_case<title_words>},
      {"capitalize", map_case<to_capitalized>},
      {"escape", filter_escape},
      {"e", filter_escape},
      {"forceescape", filter_force_escape},
      {"safe", filter_safe},
      {"string", filter_string},
      {"trim", filter_trim},
      {"replace", filter_replace},
      {"format", filter_format},
      {"indent", filter_indent},
      {"center", filter_center},
      {"wordcount", filter_wordcount},
      {"truncate", filter_truncate},
      {"striptags", filter_striptags},
      {"urlencode", filter_urlencode},
      {"wordwrap", filter_wordwrap},
      {"abs", filter_abs},
      {"int", filter_int},
      {"float", filter_float},
      {"round", filter_round},
      {"filesizeformat", filter_filesizeformat},
      {"tojson", filter_tojson},
  };
  return kRows;
}

}  // namespace graft::jinja
