#include "graft/text/jinja/lexer.h"

#include <algorithm>

#include "graft/base/error.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : where_(where) {
    source_.reserve(source.size());
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        source_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        source_ += source[i];
      }
    }
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
  }

  std::vector<Token> run() {
    while (position_ < source_.size()) root();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(int32_t line, const std::string& message) const { fail("{}:{}: {}", where_, line, message); }

  void add(TokenKind kind, std::string text) {
    constexpr size_t kMaxTokens = 150000;  // published templates have less than ten thousand
    if (tokens_.size() >= kMaxTokens) {
      error(line_, fmt::format("the template passes the limit of {} tokens", kMaxTokens));
    }
    tokens_.push_back({kind, std::move(text), line_});
  }

  // Moves on and keeps count of lines.
  void advance(size_t to) {
    line_ += static_cast<int32_t>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                             source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > position_) line_starting_ = source_[to - 1] == '\n';
    position_ = to;
  }

  // Text up to `tag`, cut before a tag with `-`, or back to the line's start if only white space stands between.
  void text_before(size_t tag, char sign, bool block) {
    std::string_view text(source_.data() + position_, tag - position_);
    if (sign == '-') {
      text = text.substr(0, skip_space_back(text, 0, text.size()));
    } else if (sign != '+' && block) {
      const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
      if ((line_begin > 0 || line_starting_) && line_begin < text.size() &&
          skip_space(text, line_begin, text.size()) == text.size()) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) add(TokenKind::data, std::string(text));
    advance(tag);
  }

  void root() {
    size_t tag = position_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(TokenKind::data, source_.substr(position_));
        advance(source_.size());
        return;
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign =
        tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : 0;
    text_before(tag, sign, kind != '{');
    const size_t inside = tag + 2 + (sign != 0);
    if (kind == '#') return comment(inside);
    if (kind == '%') {
      if (const size_t end = word_tag(inside, "raw", false); end != 0) {
        advance(end);
        return raw();
      }
    }
    advance(inside);
    add(kind == '{' ? TokenKind::variable_begin : TokenKind::block_begin, "");
    expression(kind == '{');
  }

  // The end of `WORD %}` from `at`, 0 if it does not stand there. After raw no newline is dropped, after endraw one is.
  size_t word_tag(size_t at, std::string_view word, bool trim_newline) const {
    at = skip_space(source_, at, source_.size());
    if (source_.compare(at, word.size(), word) != 0) return 0;
    at = skip_space(source_, at + word.size(), source_.size());
    const bool minus = source_.compare(at, 1, "-") == 0, plus = trim_newline && source_.compare(at, 1, "+") == 0;
    if (minus || plus) ++at;
    if (source_.compare(at, 2, "%}") != 0) return 0;
    at += 2;
    if (minus) return skip_space(source_, at, source_.size());
    return trim_newline && !plus && at < source_.size() && source_[at] == '\n' ? at + 1 : at;
  }

  void raw() {
    const int32_t begin_line = line_;
    for (size_t tag = source_.find("{%", position_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char sign =
          tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : 0;
      const size_t end = word_tag(tag + 2 + (sign != 0), "endraw", true);
      if (end == 0) continue;
      text_before(tag, sign, true);
      advance(end);
      return;
    }
    error(begin_line, "the tag 'raw' is never closed; expected 'endraw'");
  }

  void comment(size_t inside) {
    const size_t close = source_.find("#}", inside);
    if (close == std::string::npos) error(line_, "a comment is never closed; expected '#}'");
    const char before = close > inside ? source_[close - 1] : 0;
    size_t end = close + 2;
    if (before == '-') {
      end = skip_space(source_, end, source_.size());
    } else if (before != '+' && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    advance(end);
  }

  bool closes(bool variable) {
    const std::string_view rest(source_.data() + position_, source_.size() - position_);
    const std::string_view mark = variable ? "}}" : "%}";
    size_t end = position_;
    if (rest.substr(0, 2) == mark) {
      end += 2;
      if (!variable && end < source_.size() && source_[end] == '\n') ++end;
    } else if (rest.size() > 2 && rest[0] == '-' && rest.substr(1, 2) == mark) {
      end = skip_space(source_, end + 3, source_.size());
    } else if (!variable && rest.size() > 2 && rest[0] == '+' && rest.substr(1, 2) == mark) {
      end += 3;
    } else {
      return false;
    }
    add(variable ? TokenKind::variable_end : TokenKind::block_end, "");
    advance(end);
    return true;
  }

  void expression(bool variable) {
    const int32_t begin_line = line_;
    std::string open;  // brackets
    for (;;) {
      advance(skip_space(source_, position_, source_.size()));
      if (position_ >= source_.size()) {
        error(begin_line, fmt::format("a tag is never closed; expected '{}'", variable ? "}}" : "%}"));
      }
      if (open.empty() && closes(variable)) return;
      const char c = source_[position_];
      if (is_digit(c)) {
        number();
      } else if (starts_name(c)) {
        size_t end = position_;
        while (end < source_.size() && (starts_name(source_[end]) || is_digit(source_[end]))) ++end;
        add(TokenKind::name, source_.substr(position_, end - position_));
        advance(end);
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        op(open);
      }
    }
  }

  void op(std::string& open) {
    static constexpr std::string_view kLong[] = {"//", "**", "==", "!=", ">=", "<="};
    const std::string_view rest(source_.data() + position_, source_.size() - position_);
    size_t size = std::find(std::begin(kLong), std::end(kLong), rest.substr(0, 2)) != std::end(kLong) ? 2 : 1;
    const char c = rest[0];
    if (size == 1 && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      error(line_, fmt::format("unexpected character '{}'", printable(rest.substr(0, 1))));
    }
    if (size == 1 && (c == '(' || c == '[' || c == '{')) {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (size == 1 && (c == ')' || c == ']' || c == '}')) {
      if (open.empty()) error(line_, fmt::format("unexpected '{}'", c));
      if (open.back() != c) error(line_, fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    add(TokenKind::op, std::string(rest.substr(0, size)));
    advance(position_ + size);
  }

  size_t digits(size_t at, std::string& out) const {  // \d+(_\d+)*
    while (at < source_.size()) {
      if (is_digit(source_[at])) {
        out += source_[at++];
      } else if (source_[at] == '_' && at + 1 < source_.size() && is_digit(source_[at + 1]) && !out.empty()) {
        ++at;
      } else {
        break;
      }
    }
    return at;
  }

  void number() {
    size_t at = position_;
    if (source_[at] == '0' && at + 1 < source_.size()) {
      const char letter = static_cast<char>(source_[at + 1] | 0x20);
      const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
      if (base != 0) return based(base);
    }
    std::string text;
    at = digits(at, text);
    bool real = false;
    if (at + 1 < source_.size() && source_[at] == '.' && is_digit(source_[at + 1])) {
      real = true;
      text += '.';
      std::string fraction;
      at = digits(at + 1, fraction);
      text += fraction;
    }
    if (at < source_.size() && (source_[at] | 0x20) == 'e') {
      size_t exponent = at + 1;
      std::string sign;
      if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) {
        sign = source_[exponent++];
      }
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        real = true;
        std::string power;
        at = digits(exponent, power);
        text += 'e' + sign + power;
      }
    }
    if (!real && text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != std::string::npos) {
      error(line_, fmt::format("an integer cannot start with 0: '{}'", printable(text)));
    }
    add(real ? TokenKind::real : TokenKind::integer, std::move(text));
    advance(at);
  }

  void based(int base) {
    size_t at = position_ + 2;
    uint64_t value = 0;
    bool any = false;
    for (; at < source_.size(); ++at) {
      if (source_[at] == '_') continue;
      const int digit = hex_value(source_[at]);
      if (digit < 0 || digit >= base) break;
      if (value > (uint64_t{1} << 58)) error(line_, "a number beyond 63 bits in another base than ten");
      value = value * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
      any = true;
    }
    if (!any) error(line_, "a number without digits");
    add(TokenKind::integer, std::to_string(value));
    advance(at);
  }

  void string(char quote) {
    const int32_t begin_line = line_;
    std::string out;
    size_t at = position_ + 1;
    for (;; ++at) {
      if (at >= source_.size()) error(begin_line, "a string is never closed");
      const char c = source_[at];
      if (c == quote) break;
      if (c != '\\') {
        out += c;
        continue;
      }
      if (++at >= source_.size()) error(begin_line, "a string is never closed");
      at = escape(at, out);
    }
    add(TokenKind::string, std::move(out));
    advance(at + 1);
  }

  // Python's escapes; returns the last byte used.
  size_t escape(size_t at, std::string& out) const {
    const char c = source_[at];
    static constexpr std::string_view kFrom = "abfnrtv\\'\"", kTo = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      out += kTo[i];
      return at;
    }
    if (c == '\n') return at;
    if (c >= '0' && c <= '7') {
      int32_t value = 0;
      size_t end = at;
      for (; end < at + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7'; ++end) {
        value = value * 8 + (source_[end] - '0');
      }
      append_code_point(out, value);
      return end - 1;
    }
    const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (width == 0) {
      if (c == 'N') error(line_, "the escape \\N{…} is not supported");
      out += '\\';
      out += c;
      return at;
    }
    int64_t value = 0;
    for (size_t i = 1; i <= width; ++i) {
      const int digit = at + i < source_.size() ? hex_value(source_[at + i]) : -1;
      if (digit < 0) error(line_, fmt::format("a truncated \\{} escape", c));
      value = value * 16 + digit;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
      error(line_, fmt::format("the escape \\{} names no character", source_.substr(at, width + 1)));
    }
    append_code_point(out, static_cast<int32_t>(value));
    return at + width;
  }

  std::string source_;
  const std::string& where_;
  size_t position_ = 0;
  int32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> lex(std::string_view source, const std::string& where) { return Lexer(source, where).run(); }

}  // namespace graft::jinja
