#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graft/base/thread_pool.h"
#include "graft/formats/lora_config.h"
#include "graft/models/decoder.h"
#include "graft/train/batch.h"
#include "graft/train/config.h"
#include "graft/train/dataset.h"
#include "graft/train/step.h"
#include "graft/train/train_data.h"

namespace graft {

// The adapter that the flags describe (or that --adapter brings).
LoraConfig lora_settings(const TrainConfig& config);
int64_t site_parameters(const AdapterSites& sites, const ModelConfig& config);

// Evaluation goes through the rows once, in file order.
BatchOptions evaluation_batches(const TrainConfig& config);

// What a run will take, and how it is made to fit.
struct MemoryChoice {
  int recompute_every = 0;
  int64_t head_chunk_rows = 64;
  int64_t forecast_bytes = 0;  // peak resident size of the process
};
// --recompute and --memory-limit resolved. Error with the smallest limit that works if none does.
MemoryChoice choose_memory(const ModelFolder& folder, const AdapterSites* sites, const StepOptions& options, const BatchCapacity& capacity,
                           int num_threads, const TrainConfig& config);

// Refuses a folder that is not empty, unless `overwrite`, which removes what graft wrote there and nothing else.
void prepare_output_folder(const std::string& folder, bool overwrite, bool resume);
// Copies the weights of a checkpoint (not its optimizer and state) into a folder, each file whole.
void copy_checkpoint_weights(const std::string& checkpoint, const std::string& folder);

// Which row made the loss not finite: "data.jsonl:12, token 34".
std::string describe_bad_loss(const Dataset& data, std::span<const int64_t> examples, const Batch& batch, std::span<const float> nll);
std::string describe_rows(const Dataset& data, const Update& update);

}  // namespace graft
