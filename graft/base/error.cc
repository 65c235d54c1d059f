#include "graft/base/error.h"

#include <cstdint>

#include "graft/base/utf8.h"

namespace graft {

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
    } else if (const Utf8Sequence sequence = utf8_sequence(text, i); sequence.complete) {
      out.append(text.substr(i, sequence.length)), i += sequence.length;
    } else {
      out += fmt::format("\\x{:02x}", byte), ++i;
    }
  }
  return out;
}

}  // namespace graft
