#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "graft/text/aligned_text.h"
#include "graft/text/json_field.h"

namespace graft {

// The "normalizer" of a tokenizer.json: NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, StripAccents,
// ByteLevel and Sequences of them. Alignments follow the Hugging Face crate `tokenizers`.
class Normalizer {
 public:
  struct Step;

  Normalizer();
  // No field: changes nothing. Throws Error naming types it does not know.
  explicit Normalizer(const std::optional<JsonField>& field);
  Normalizer(Normalizer&&) noexcept;
  Normalizer& operator=(Normalizer&&) noexcept;
  ~Normalizer();

  // `skip_prefix`: the text continues another one, so Prepend does nothing.
  // Throws Error if the text grows out of all proportion.
  void normalize(AlignedText& text, bool skip_prefix) const;
  bool empty() const { return steps_.empty(); }

 private:
  void add(const JsonField& field);
  std::vector<std::unique_ptr<Step>> steps_;
};

// Each byte as the visible character that byte-level tokenizers write for it, in UTF-8 (GPT-2's table).
std::string_view byte_level_char(uint8_t byte);
// The byte that a visible character stands for, -1 if none.
int byte_level_byte(char32_t code);
void to_byte_level(AlignedText& text);

class Pattern;
// Every match becomes `content`. Throws Error "WHERE: …" beyond max_bytes.
void replace_matches(AlignedText& text, const Pattern& pattern, std::string_view content, size_t max_bytes,
                     std::string_view where);

}  // namespace graft
