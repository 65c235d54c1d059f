#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "graft/base/json.h"
#include "graft/kernels/context.h"
#include "graft/models/adapter.h"
#include "graft/train/config.h"
#include "graft/train/step.h"

namespace graft {

// Where a run stands between two updates, beside its tensors.
struct RunState {
  int64_t step = 0;          // updates done
  int64_t applied = 0;       // of these, applied to the weights: the optimizer's t
  int64_t bad_in_a_row = 0;  // updates not applied because something was not finite
  int64_t num_tokens = 0;    // read so far
  double loss = 0;           // of the last update
  std::optional<double> best_loss;
  int64_t best_step = 0, evaluations_without_gain = 0;
};

// What a checkpoint needs of a run.
struct CheckpointSource {
  Context* context = nullptr;
  const TrainConfig* config = nullptr;
  const Model* model = nullptr;
  const AdapterWeights* adapter = nullptr;  // null under full fine-tuning
  const TrainStep* step = nullptr;
  std::string data_fingerprint, dtype;
  bool chat = false;
};

// The weights alone, as DIR and every checkpoint hold them: a PEFT adapter, or a complete model folder.
void save_weights(const CheckpointSource& source, const RunState& state, double learning_rate,
                  const std::string& folder);

// OUT/checkpoint-STEP: weights, optimizer.safetensors, graft_state.json, trainer_state.json.
void save_checkpoint(const CheckpointSource& source, const RunState& state, double learning_rate,
                     const Json& log_history);

// Reads a checkpoint's state, and its moments (and master weights) into the tensors; weights are loaded by the caller. Errors name the file and what
// differs.
RunState load_run_state(const std::string& checkpoint, const std::string& data_fingerprint);
void load_optimizer(const std::string& checkpoint, std::vector<TrainedTensor>& tensors);
// The settings of the run that wrote a checkpoint.
TrainConfig checkpoint_config(const std::string& checkpoint);

}  // namespace graft
