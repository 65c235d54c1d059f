#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graft/base/thread_pool.h"
#include "graft/formats/checkpoint.h"
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

// What a run adds to the loss for its routers: the config's coefficients, unless the run gives others (`router_aux_loss_coef` counts where
// `output_router_logits` is true), and over which layers. Errors: coefficients given for a model without experts.
struct RouterLoss {
  double aux_coef = 0, z_coef = 0;
  bool joint = false;
};
RouterLoss router_loss_settings(const ModelConfig& model, std::optional<double> aux_coef, std::optional<double> z_coef,
                                std::string_view aux_mode);

// Evaluation goes through the rows once, in file order.
BatchOptions evaluation_batches(const TrainConfig& config);

// What a run will take, and how it is made to fit.
struct MemoryChoice {
  int recompute_every = 0;
  int64_t head_chunk_rows = 64;
  int64_t forecast_bytes = 0;  // peak resident size of the process
};
// --recompute and --memory-limit resolved. Error with the smallest limit that works if none does.
MemoryChoice choose_memory(const ModelFolder& folder, const AdapterSites* sites, const StepOptions& options,
                           const BatchCapacity& capacity, int num_threads, const TrainConfig& config);

// Refuses a checkpoint of full training whose model computes something else than the model of the run: one Error with every setting that differs.
void check_same_model(const ModelConfig& checkpoint, const ModelConfig& model);

// Refuses what is no folder, and a folder that is not empty unless `overwrite` or `resume`.
void check_output_folder(const std::string& folder, bool overwrite, bool resume);
// The same; then `overwrite` removes what graft wrote there and nothing else.
void prepare_output_folder(const std::string& folder, bool overwrite, bool resume);
// Creates a folder and those above it. Error with the reason.
void create_folders(const std::string& folder);
// Removes the temporary files that a killed run left in its --out.
void remove_temporaries(const std::string& folder);
// A run that goes on elsewhere, or from an older checkpoint, gets the lines of metrics.jsonl that are missing there, and the best checkpoint.
void restore_history(const Checkpoint& from, int64_t best_step, const std::string& folder);
// Copies the weights of a checkpoint (not its optimizer and state) into a folder, each file whole.
void copy_checkpoint_weights(const std::string& checkpoint, const std::string& folder);

// Which row made the loss not finite: "data.jsonl:12, token 34".
std::string describe_bad_loss(const Dataset& data, std::span<const int64_t> examples, const Batch& batch,
                              std::span<const float> nll);
// Which weight is not finite, or else how large the largest trained one is.
std::string describe_bad_weights(Context& context, const Model& model, std::span<const TrainedTensor> trained);
std::string describe_rows(const Dataset& data, const Update& update);

}  // namespace graft
