#include "graft/base/error.h"

#include <cstdint>

namespace graft {
namespace {

// Length of the well-formed UTF-8 sequence that starts at text[i], or 0.
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<uint8_t>(text[k]); };
  const uint8_t lead = byte(i);
  size_t length = 0;
  uint32_t low = 0x80, high = 0xBF;
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
  }
  if (length == 0 || i + length > text.size()) return 0;
  if (byte(i + 1) < low || byte(i + 1) > high) return 0;
  for (size_t k = 2; k < length; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (out.size() >= max_bytes) return out + "…";
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte == '\n') {
      out += "\\n", ++i;
    } else if (byte == '\t') {
      out += "\\t", ++i;
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte), ++i;
    } else if (byte < 0x80) {
      out += static_cast<char>(byte), ++i;
    } else if (const size_t length = utf8_length(text, i); length > 0) {
      out.append(text.substr(i, length)), i += length;
    } else {
      out += fmt::format("\\x{:02x}", byte), ++i;
    }
  }
  return out;
}

}  // namespace graft
