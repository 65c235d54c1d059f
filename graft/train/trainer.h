#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/kernels/context.h"
#include "graft/train/config.h"
#include "graft/train/metrics.h"

namespace graft {

// What a run will be, known before it starts.
struct TrainPlan {
  int64_t rows = 0, tokens = 0, trained_tokens = 0, longest = 0, steps = 0;
  int64_t valid_rows = 0;
  int64_t trainable_parameters = 0, model_parameters = 0;
  int64_t forecast_memory_bytes = 0;
  std::string dtype;        // resolved: f32 or bf16
  int recompute_every = 0;  // resolved
  int64_t head_chunk_rows = 64;
  double seconds = 0;                 // estimated; 0 until known
  std::vector<std::string> previews;  // two rows with the trained part marked
};

struct TrainResult {
  int64_t steps = 0;
  double loss = 0;                  // of the last update
  std::optional<double> eval_loss;  // of the weights in DIR
  int64_t tokens = 0;
  double tokens_per_second = 0;
  int64_t peak_memory_bytes = 0, forecast_memory_bytes = 0;
  double seconds = 0;
  std::string adapter;       // the folder written
  bool interrupted = false;  // stopped by `stop`, with a checkpoint saved
  std::string message;       // how to go on, where interrupted; which step DIR holds, with early stopping
};

// What a caller hears while a run goes on; each may be empty.
struct TrainEvents {
  std::function<void(const TrainPlan&)> planned;
  std::function<void(const Progress&)> step;
  std::function<void(const EvalMetrics&)> evaluated;
  std::function<void(const std::string&)> note;  // a checkpoint was written, an earlier one was resumed
  std::function<bool()> stop;                    // asked between micro-batches
};

// One run of `graft train`: data, model and adapter are opened and checked by the constructor, nothing is trained or written yet.
class Trainer {
 public:
  Trainer(Context& context, TrainConfig config);
  ~Trainer();
  const TrainPlan& plan() const;
  const TrainConfig& config() const;  // resolved
  // Measures one update to estimate the time (dry run); changes nothing that a later run() uses.
  double estimate_seconds();
  TrainResult run(const TrainEvents& events);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
