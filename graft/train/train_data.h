#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/base/thread_pool.h"
#include "graft/formats/model_config.h"
#include "graft/train/config.h"
#include "graft/train/encode.h"

namespace graft {

// Everything a run learns from and is measured on.
struct TrainData {
  Dataset train, valid;  // valid is empty where there is none
  bool chat = false;     // rows went through the chat template: DIR records "chat", else "raw"
  // Of the training rows: rows read, then what is trained of them (longer rows cut or left out as config says).
  int64_t num_rows = 0, num_tokens = 0, num_trained_tokens = 0, longest = 0;
  int64_t max_length = 0;             // resolved
  std::vector<std::string> previews;  // two rows with the trained part marked
};

// Reads config.data and config.valid (a file, a share of the rows, or else valid.jsonl of the data folder), encodes and
// splits as `config` says. Throws one Error with all that is wrong with both files; Error for a max_length beyond the model's
// maximum, ids that the model has no row for, early stopping without validation data. Only rows need a tokenizer.
TrainData load_train_data(const TrainConfig& config, const ModelConfig& model, ThreadPool& pool);

}  // namespace graft
