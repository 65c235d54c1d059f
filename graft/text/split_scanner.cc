#include "graft/text/split_scanner.h"

#include "graft/text/unicode.h"

namespace graft {
namespace {

struct Char {
  uint16_t bits;
  uint32_t length;  // 0 at the end of the text
  char32_t code;
};
inline Char char_at(std::string_view text, size_t i) {
  if (i >= text.size()) return {0, 0, 0};
  const auto lead = static_cast<uint8_t>(text[i]);
  if (lead < 0x80) return {kAsciiClasses[lead], 1, lead};
  const DecodedChar c = decode_utf8(text, i);
  return {char_class(c.code), c.length, c.code};
}

bool is_newline(char32_t code) { return code == '\r' || code == '\n'; }

char lower(char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); }

// Length of the contraction at text[i] (an apostrophe), 0 if there is none.
size_t contraction(std::string_view text, size_t i, bool any_case) {
  const auto at = [&](size_t k) { return i + k < text.size() ? any_case ? lower(text[i + k]) : text[i + k] : '\0'; };
  const char a = at(1), b = at(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (any_case && text.substr(i + 1, 2) == "\u017F") return 3;  // long s folds to s
  return 0;
}

}  // namespace

std::optional<SplitScanner> SplitScanner::for_pattern(std::string_view pattern) {
  if (pattern == kQwen2Pattern) return SplitScanner{};
  if (pattern == kLlama3Pattern) return SplitScanner{.max_digits = 3};
  if (pattern == kQwen35Pattern) return SplitScanner{.marks_in_words = true};
  if (pattern == kGpt2Pattern) return SplitScanner{.contractions = Contractions::kExact, .gpt2 = true};
  return std::nullopt;
}

void SplitScanner::find(std::string_view text, std::vector<Match>& out) const {
  for (size_t i = 0; i < text.size();) {
    const size_t end = match_end(text, i);
    out.push_back({i, end, true});
    i = end;
  }
}

// The alternatives of the pattern in their order.
size_t SplitScanner::match_end(std::string_view text, size_t i) const {
  const Char first = char_at(text, i);
  if (first.code == '\'') {
    if (const size_t length = contraction(text, i, contractions == Contractions::kAnyCase); length > 0) {
      return i + length;
    }
  }
  const auto run = [&](size_t at, auto&& member) {
    for (Char c = char_at(text, at); c.length > 0 && member(c); c = char_at(text, at)) at += c.length;
    return at;
  };
  const uint16_t word = marks_in_words ? kCharLetter | kCharMark : kCharLetter;
  const auto in_word = [&](const Char& c) { return (c.bits & word) != 0; };
  const auto is_number = [](const Char& c) { return (c.bits & kCharNumber) != 0; };
  const auto is_sign = [&](const Char& c) { return c.length > 0 && (c.bits & (word | kCharNumber | kCharSpace)) == 0; };
  const size_t next = i + first.length;
  const Char second = char_at(text, next);

  if (gpt2) {
    const bool space = first.code == ' ';
    const Char& c = space ? second : first;
    const size_t from = space ? next : i;
    if (in_word(c)) return run(from, in_word);
    if (is_number(c)) return run(from, is_number);
    if (is_sign(c)) return run(from, is_sign);
  } else {
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if ((first.bits & (kCharLetter | kCharNumber)) == 0 && !is_newline(first.code) && in_word(second)) {
      return run(next, in_word);
    }
    if (in_word(first)) return run(i, in_word);
    if (is_number(first)) {
      size_t end = next;
      for (int count = 1; count < max_digits; ++count) {
        const Char c = char_at(text, end);
        if (!is_number(c)) break;
        end += c.length;
      }
      return end;
    }
    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    if (is_sign(first) || (first.code == ' ' && is_sign(second))) {
      return run(run(is_sign(first) ? i : next, is_sign), [](const Char& c) { return is_newline(c.code); });
    }
  }
  // What is left is white space: \s*[\r\n]+ (not GPT-2), \s+(?!\S), \s+
  size_t end = i, last = i, after_newline = 0;
  for (Char c = first; c.length > 0 && (c.bits & kCharSpace) != 0; c = char_at(text, end)) {
    last = end;
    end += c.length;
    if (is_newline(c.code)) after_newline = end;
  }
  if (!gpt2 && after_newline > 0) return after_newline;
  if (end == text.size() || last == i) return end;
  return last;
}

}  // namespace graft
