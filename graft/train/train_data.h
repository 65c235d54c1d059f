#pragma once

#include <cstdint>
#include <string>

#include "graft/base/thread_pool.h"
#include "graft/train/config.h"
#include "graft/train/encode.h"

namespace graft {

// Everything a run learns from and is measured on.
struct TrainData {
  Dataset train, valid;  // valid is empty where there is none
  bool chat = false;     // rows went through the chat template: DIR records "chat", else "raw"
  bool pretokenised = false;
  // Of the training data: rows read, tokens before any was cut or left out, longest row (the figures of --dry-run).
  int64_t num_rows = 0, num_tokens = 0, num_trained_tokens = 0, longest = 0;
};

EncodeSettings encode_settings(const TrainConfig& config);

// Reads config.data and config.valid (a file, a share of the rows, or valid.jsonl of the data folder) as `graft train`
// does. Throws one Error with all that is wrong with them: faults of rows, ids that the model of vocab_size has no row
// for, early stopping without validation data.
TrainData load_train_data(const TrainConfig& config, const RowEncoder& encoder, int64_t vocab_size, ThreadPool& pool);

// DATA of `graft eval`: the training file's way, for one file.
TrainData load_eval_data(const std::string& data, const RowEncoder& encoder, int64_t vocab_size, int64_t ignore_index,
                         ThreadPool& pool);

}  // namespace graft
