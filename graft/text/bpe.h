#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graft/text/json_field.h"

namespace graft {

// Token strings by id and ids by string. Ids may have gaps, but not wide ones.
class Vocabulary {
 public:
  // {"token": id, …}. Throws Error for ids that are not integers, negative, given twice or far beyond the number of
  // tokens.
  static Vocabulary from_json(const JsonField& field);

  int32_t find(std::string_view token) const;  // -1 if absent
  std::optional<std::string_view> token(int32_t id) const;
  int64_t end_id() const { return static_cast<int64_t>(by_id_.size()); }  // largest id + 1

 private:
  struct Entry {
    uint32_t begin = 0, length = 0;
    bool used = false;
  };
  std::string_view view(const Entry& e) const { return std::string_view(text_).substr(e.begin, e.length); }

  std::string text_;
  std::vector<Entry> by_id_;
  std::vector<int32_t> slots_;  // open addressing, -1 free
};

struct Symbol {
  int32_t id;
  uint32_t length;  // bytes of the piece
};

// The BPE model of a tokenizer.json. Merging: lowest rank first, among equals the leftmost.
class Bpe {
 public:
  explicit Bpe(const JsonField& model);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Every byte has its byte-level character in the vocabulary, so that pieces may be given as plain bytes.
  bool takes_bytes() const { return takes_bytes_; }

  // Appends the tokens of one pre-token; `bytes`: it is not written in byte-level characters, but will be read so.
  void encode(std::string_view piece, bool bytes, std::vector<Symbol>& out) const;

 private:
  struct Merge {
    uint64_t pair;
    uint32_t rank;
    int32_t result;
  };
  static constexpr uint64_t kFree = ~uint64_t{0};

  void read_merges(const JsonField& field);
  void add_merge(int32_t left, int32_t right, uint32_t rank, int32_t result);
  const Merge* merge_of(int32_t left, int32_t right) const;
  void encode_word(std::string_view word, bool bytes, std::vector<Symbol>& out) const;
  void encode_uncached(std::string_view word, bool bytes, std::vector<Symbol>& out) const;
  void first_symbols(std::string_view word, bool bytes, std::vector<Symbol>& out) const;
  size_t joint_char(char32_t code) const;
  int32_t char_id(char32_t code, std::string_view text) const;
  void merge_few(std::vector<Symbol>& symbols, size_t from) const;
  void merge_many(std::vector<Symbol>& symbols, size_t from) const;

  Vocabulary vocabulary_;
  std::vector<Merge> merges_;  // open addressing
  int merge_shift_ = 0;
  std::string file_, unk_token_, prefix_, suffix_;
  bool has_unk_ = false, fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
  bool takes_bytes_ = false;
  bool cuts_ = false;  // pieces of characters may be cut where no merge joins
  // Whether a merge joins a token that ends in one character to one that begins with another: ASCII, and ▁ as number
  // 128.
  static constexpr size_t kJointChars = 129;
  std::array<std::array<bool, kJointChars>, kJointChars> joints_{};
  int32_t unk_id_ = -1, space_mark_id_ = -1;
  uint64_t serial_ = 0;  // names this model in the threads' caches
  std::array<int32_t, 256> byte_ids_{}, fallback_ids_{};
  std::array<int32_t, 128> ascii_ids_{};
  std::unordered_map<char32_t, int32_t> char_ids_;
};

}  // namespace graft
