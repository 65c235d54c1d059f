#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft {

// UTF-8 as tokenizers need it. Where a function says "valid", the caller has checked with find_invalid_utf8.

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Byte where the first ill-formed sequence begins, npos if there is none (Unicode 15, table 3-7).
size_t find_invalid_utf8(std::string_view text);

// Ill-formed bytes become U+FFFD, one for each maximal subpart, as Rust's from_utf8_lossy and Python's errors="replace"
// do.
std::string utf8_lossy(std::string_view bytes);

struct DecodedChar {
  char32_t code;
  uint32_t length;  // bytes, 1 to 4
};

// The character at text[i]; text is valid and i is a character's first byte.
inline DecodedChar decode_utf8(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i + k])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {static_cast<char32_t>(lead), 1};
  if (lead < 0xE0) return {static_cast<char32_t>((lead & 0x1F) << 6 | (byte(1) & 0x3F)), 2};
  if (lead < 0xF0) return {static_cast<char32_t>((lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F)), 3};
  return {
      static_cast<char32_t>((lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F)),
      4};
}

inline bool is_utf8_continuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }
size_t previous_char(std::string_view text, size_t end);  // first byte of the character that ends at `end` > 0
void append_utf8(std::string& out, char32_t code);
size_t utf8_size(char32_t code);

// General categories and properties, in bits.
enum CharClass : uint16_t {
  kCharLetter = 1,        // L*
  kCharMark = 2,          // M*
  kCharNumber = 4,        // N*
  kCharDecimal = 8,       // Nd
  kCharPunctuation = 16,  // P*
  kCharSpace = 32,        // White_Space
  kCharConnector = 64,    // Pc
};
uint16_t unicode_class(char32_t code);

inline constexpr std::array<uint8_t, 128> kAsciiClasses = [] {
  std::array<uint8_t, 128> table{};
  for (const char c : std::string_view("!\"#%&'()*,-./:;?@[\\]_{}")) table[static_cast<size_t>(c)] = kCharPunctuation;
  table['_'] |= kCharConnector;
  for (size_t c = '0'; c <= '9'; ++c) table[c] = kCharNumber | kCharDecimal;
  for (size_t c = 'a'; c <= 'z'; ++c) table[c] = table[c - 32] = kCharLetter;
  for (const char c : std::string_view("\t\n\v\f\r ")) table[static_cast<size_t>(c)] = kCharSpace;
  return table;
}();
inline uint16_t char_class(char32_t code) { return code < 128 ? kAsciiClasses[code] : unicode_class(code); }
bool is_punctuation_char(char32_t code);  // ASCII signs and P*, as BERT splits at them
bool is_word_char(char32_t code);         // \w: letters, marks, decimal digits, letter numbers, connectors, joiners
inline bool is_space_char(char32_t code) { return (char_class(code) & kCharSpace) != 0; }

// Lowercase mapping of one character (Unicode's full mapping; only U+0130 gives two characters).
void append_lowercase(std::vector<char32_t>& out, char32_t code);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// A character of the normalized text, and how it came about: 0 replaces the next character, n < 0 replaces the next and
// takes -n more away, 1 is inserted. That is what alignments back to the original text are made of.
using ChangedChar = std::pair<char32_t, int>;

// The first part at or behind `from` that normalizing may change, with the character before it, to which it may join;
// empty at the end if there is none. What lies outside such parts stays as it is.
struct UnstableRun {
  size_t begin, end;
};
UnstableRun find_unstable(std::string_view text, size_t from, NormalForm form);
std::vector<ChangedChar> normalize_unicode(std::string_view text, NormalForm form);

}  // namespace graft
