#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace graft {

// One tokenised row. The model at position t predicts targets[t], the next token unless the data says otherwise;
// target_weights[t] is the weight of that prediction in the loss, 0 = not trained.
struct Example {
  std::span<const int32_t> ids;
  std::span<const float> target_weights;  // as long as ids; the last is 0 unless the data brings its own targets
  int64_t row = 0;                        // number of the row in the data, from 0: names its random draws
  bool trains(size_t token) const { return token > 0 && target_weights[token - 1] > 0; }  // is this token learned?
};

// Tokenised rows, one after the other in flat arrays. Rows that were dropped leave a gap in the row numbers.
class Dataset {
 public:
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  bool empty() const { return rows_.empty(); }
  Example example(int64_t i) const;
  int32_t target(int64_t i, int64_t t) const;  // of example i at position t; its weight must be above 0
  int64_t num_tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t num_trained_tokens() const { return num_trained_; }  // targets with a weight above 0
  int64_t longest() const { return longest_; }
  int32_t max_id() const { return max_id_; }  // over ids and trained targets; −1 without tokens
  int64_t length(int64_t i) const { return offsets_[static_cast<size_t>(i) + 1] - offsets_[static_cast<size_t>(i)]; }
  std::string where(int64_t i) const;  // "train.jsonl:3"
  uint64_t num_bytes() const;          // of memory

  // Pre-tokenised data: so many examples after each other are one micro-batch; 0: rows are free.
  int64_t fixed_batch() const { return fixed_batch_; }
  void set_fixed_batch(int64_t n) { fixed_batch_ = n; }

  int32_t add_file(std::string path);
  // weights has the length of ids. targets is empty (the next token), for all examples or for none.
  void add(std::span<const int32_t> ids, std::span<const float> weights, int64_t row, int32_t file, int64_t line,
           std::span<const int32_t> targets = {});
  // A name of the data: equal content gives equal text on every machine. Kept in checkpoints.
  std::string fingerprint() const;

 private:
  std::vector<int32_t> ids_, targets_;
  std::vector<float> weights_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int64_t> rows_, lines_;
  std::vector<int32_t> file_of_;
  std::vector<std::string> files_;
  int64_t num_trained_ = 0, longest_ = 0, fixed_batch_ = 0;
  int32_t max_id_ = -1;
};

// Cuts off a share of the examples for validation: those with the smallest draws of (seed, row number), at least one.
// Returns {training, validation}, both in file order. Throws Error if nothing would be left to train.
std::pair<Dataset, Dataset> split_dataset(const Dataset& data, double share, uint64_t seed);

// Pre-tokenised data: `input_ids` [batches, batch, seq] and `labels` of the same shape, where the label at t is
// predicted from t − 1 and the first is never used; or `targets`, the label at t predicted from t. ignore_index is not
// trained. An `attention_mask`, if there, must be ones and then zeros; tokens under zeros are left out. Throws Error
// for other shapes or types, ids outside [0, vocab_size), and a batch without a label.
Dataset read_pretokenised(const std::string& path, int64_t vocab_size, int64_t ignore_index);

}  // namespace graft
