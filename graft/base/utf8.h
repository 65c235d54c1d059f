#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace graft {

// What stands at one place of a text: `length` bytes, which are a whole character where `complete`, else the longest
// prefix of one (at least the first byte), which a decoder replaces by one U+FFFD.
struct Utf8Sequence {
  size_t length;
  bool complete;
};

// The sequence that starts at text[i], i < text.size(). Well-formed as in table 3-7 of the Unicode standard: no overlong form,
// no surrogate, nothing above U+10FFFF.
inline Utf8Sequence utf8_sequence(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<uint8_t>(text[i + k]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {1, true};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (size_t k = 1; k < length; ++k) {
    if (i + k >= text.size() || byte(k) < low || byte(k) > high) return {k, false};
    low = 0x80, high = 0xBF;
  }
  return {length, true};
}

}  // namespace graft
