#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graft/train/config.h"
#include "graft/train/dataset.h"

namespace graft {

// A ragged micro-batch: sequences one after the other, no padding. Rows that share a slot under --pack are sequences of
// their own, so they never see each other.
struct Batch {
  std::vector<int32_t> ids;               // [tokens]
  std::vector<int32_t> positions;         // [tokens], from 0 in each sequence
  std::vector<int32_t> sequence_offsets;  // [sequences + 1]: tokens [o[i], o[i + 1]) are sequence i
  std::vector<int32_t> label_rows;        // [labels], ascending: tokens whose output is trained
  std::vector<int32_t> labels;            // [labels]: what each has to predict
  std::vector<float> label_weights;       // [labels], above 0
  std::vector<int64_t> rows;              // [sequences]: row numbers in the data
  double weight = 0;                      // sum of label_weights, in f64 and in this order
  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
};

// What one optimizer update learns from.
struct Update {
  int64_t step = 0, epoch = 0;  // from 0
  double epoch_after = 0;       // epochs done after it: 0.5, …
  // Examples of each micro-batch. The views hold until the next call of update().
  std::vector<std::span<const int64_t>> micro_batches;
  // Of all micro-batches together: the loss is the sum of weighted token losses over it, so that cutting an update into
  // micro-batches never changes what is learned.
  double weight = 0;
  int64_t num_tokens = 0, num_labels = 0;
};

// The largest micro-batch of a run: what a plan must hold.
struct BatchCapacity {
  int64_t tokens = 0, labels = 0, sequences = 0, longest = 0;
};

struct BatchOptions {
  int64_t batch_size = 4, batch_tokens = 0, accumulate = 1;  // as in TrainConfig
  int64_t epochs = 3, steps = 0;
  bool pack = false;
  int64_t max_length = 0;  // of a slot under pack; 0: the longest row
  bool shuffle = true;
  uint64_t seed = 0;
};
BatchOptions batch_options(const TrainConfig& config);

// Which rows make up which update. The order of an epoch is a Fisher-Yates shuffle by the draws of (seed, epoch): it
// depends on nothing else, so any step can be asked for at any time (resume needs no state but the step).
//   rows -> slots (one row, or under pack as many as fit, the fullest slot first) -> micro-batches -> updates
// The last micro-batch and the last update of an epoch may be smaller. With --steps the epochs go round until they are
// done.
class Batcher {
 public:
  Batcher(const Dataset& data, const BatchOptions& options);
  int64_t num_steps() const { return num_steps_; }
  int64_t steps_of_epoch(int64_t epoch);
  const Update& update(int64_t step);  // 0 <= step < num_steps()
  const BatchCapacity& capacity() const { return capacity_; }
  // Writes the batch; nothing is allocated once a batch of the capacity was filled.
  void fill(std::span<const int64_t> examples, Batch* batch) const;

 private:
  struct Epoch {
    int64_t number = -1;
    std::vector<int64_t> order;    // examples
    std::vector<int64_t> micro;    // offsets into order
    std::vector<int64_t> updates;  // offsets into micro
    int64_t num_steps() const { return static_cast<int64_t>(updates.size()) - 1; }
  };
  void plan_epoch(int64_t epoch);
  void pack_order(std::vector<int64_t>* slots);

  const Dataset& data_;
  BatchOptions options_;
  bool epochs_alike_ = false;
  int64_t num_steps_ = 0;
  std::vector<int64_t> first_step_;  // of each epoch, where epochs differ
  BatchCapacity capacity_;
  Epoch epoch_;
  Update update_;
};

}  // namespace graft
