#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "graft/text/aligned_text.h"
#include "graft/text/json_field.h"

namespace graft {

// The "pre_tokenizer" of a tokenizer.json: ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace,
// WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit and Sequences of them.
class PreTokenizer {
 public:
  struct Step;

  PreTokenizer();
  explicit PreTokenizer(const std::optional<JsonField>& field);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // The last step, and only that one, writes bytes as visible characters: the model may take the bytes themselves
  // instead.
  bool ends_in_byte_level() const;

  // Cuts the pieces further. New texts go to `arena`, which must outlive the pieces. `skip_prefix`: the first piece
  // continues a text, so no prefix space is put before it. `keep_bytes`: the final ByteLevel cuts, but does not
  // rewrite.
  void split(std::vector<Piece>& pieces, std::deque<AlignedText>& arena, bool skip_prefix, bool keep_bytes) const;

 private:
  void add(const JsonField& field);
  std::vector<std::unique_ptr<Step>> steps_;
};

enum class PrependScheme { kAlways, kFirst, kNever };
// prepend_scheme, or the older add_prefix_space, of a Metaspace pre-tokenizer or decoder.
PrependScheme read_prepend_scheme(const JsonField& field);
std::string read_replacement(const JsonField& field);  // of a Metaspace: one character

}  // namespace graft
