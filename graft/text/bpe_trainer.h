#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace graft {

struct BpeTrainerConfig {
  int64_t vocab_size = 0;                        // special tokens and the 256 bytes among them
  int64_t min_frequency = 1;                     // a pair that stands in the texts less often is no token
  std::vector<std::string> special_tokens = {};  // ids 0, 1, …
  // One Error names every fault: a vocabulary without room for specials and bytes, special tokens that are empty, no UTF-8, given twice or
  // those of single bytes.
  void validate() const;
};

// A byte-level BPE: the special tokens, the 256 bytes in the order of the characters that stand for them in the file, then a token a merge.
struct LearnedBpe {
  int64_t num_special = 0;
  std::vector<std::string> tokens;                  // by id, in plain bytes; special tokens as they are written
  std::vector<std::pair<int32_t, int32_t>> merges;  // ids of left and right; first the one to apply first
  int64_t num_text_tokens = 0;                      // of the texts, once all merges are applied

  // A tokenizer.json in the layout of Hugging Face's `tokenizers`, merges as "left right", which every version of it reads.
  std::string tokenizer_json() const;
};

// Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2), learned as `tokenizers`' BpeTrainer learns it:
//   texts -> words (GPT-2's pattern, each with its count) -> bytes; then again and again: the pair of neighbours that stands in the texts
//   most often becomes a token.
// Of pairs equally often the one with the lowest left id is taken, then with the lowest right id. A merge whose result is a token already
// adds no other; that of a special token is not made. Counts are kept up to date pair by pair, so that a merge costs as much as the words
// it changes. The result depends on the words' counts alone: not on the order of texts, threads or machine.
class BpeTrainer {
 public:
  explicit BpeTrainer(BpeTrainerConfig config);  // Error: see validate()
  // Counts the words of one text. Words beyond 4,096 bytes, which no language has, count as several. Error if it is not UTF-8.
  void add(std::string_view text);
  int64_t num_bytes() const { return num_bytes_; }  // of all texts
  LearnedBpe train() const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  BpeTrainerConfig config_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> words_;
  int64_t num_bytes_ = 0;
};

}  // namespace graft
