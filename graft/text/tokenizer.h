#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft {

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<std::pair<int64_t, int64_t>>
      byte_offsets;                   // [begin, end) in the text given; (0, 0) for tokens the post-processor added
  std::vector<uint8_t> special_mask;  // 1 for tokens the post-processor added
  std::vector<int32_t> type_ids;      // 0, or 1 for what the post-processor gives the second text
};

struct EncodeOptions {
  bool add_special_tokens = true;  // run the post-processor (BOS and the like)
  bool parse_special_tokens =
      true;  // special-token strings in the text become those tokens; false for what a user wrote
  // The text continues another: nothing is done that happens only at the start of a text (SentencePiece's prefix
  // space).
  bool continuation = false;
  // Byte ranges of the text, ascending, that a user wrote: a special token that would take a byte of them stays text. What
  // stands around them is cut as ever, so that the ids are those of the whole text wherever nobody writes such a token.
  std::span<const std::pair<int64_t, int64_t>> user_text = {};
};

// A tokenizer.json: byte-level BPE, SentencePiece-style BPE with byte fallback. Immutable after loading; safe to share
// between threads.
class Tokenizer {
 public:
  // `folder` holds tokenizer.json, and perhaps tokenizer_config.json and special_tokens_map.json, which are checked
  // too: their added tokens are taken, and an eos_token that is no token is refused.
  static Tokenizer load(const std::string& folder);
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view where);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Throws Error if the text is not UTF-8.
  Encoding encode(std::string_view text, const EncodeOptions& options = {}) const;
  Encoding encode_pair(std::string_view a, std::string_view b, const EncodeOptions& options = {}) const;
  std::vector<int32_t> encode_ids(std::string_view text, const EncodeOptions& options = {}) const;

  std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens = false) const;

  int64_t vocab_size() const;  // largest id + 1
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;  // an added token marked special
  // Throws Error naming a token whose id has no row in an embedding of so many rows.
  void check_embedding_rows(int64_t rows) const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Text as ids arrive, never half a character: what is printed is never taken back. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = false);
  std::optional<std::string> step(
      int32_t id);      // the text this id releases, empty optional while nothing can be released
  std::string flush();  // what is still held back (incomplete bytes as U+FFFD)

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> ids_;
  std::string release(std::string text);

  size_t printed_ids_ = 0;  // the first of ids_, whose text has been printed: context for what follows
  std::string printed_;     // their text
};

}  // namespace graft
