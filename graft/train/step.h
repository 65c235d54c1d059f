#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/graph/plan.h"
#include "graft/models/adapter.h"
#include "graft/models/model.h"
#include "graft/train/batch.h"

namespace graft {

// One tensor that a run trains, with everything the optimizer keeps of it. All [size] f32.
struct TrainedTensor {
  std::string name;  // as in the adapter file (PEFT's name) or the model file
  std::vector<int64_t> shape;
  std::span<float> value;
  Buffer grad, m, v;
  bool cleared = true;  // grad is zero
  bool decay = true;    // weight decay applies: all but weights and biases of norms, and biases
  std::span<float> gradient() const { return grad.as<float>(); }
};

struct StepOptions {
  Compute compute = Compute::kF32;
  bool full = false;  // train the base, loaded in rows; else the adapter
  double dropout = 0;
  bool dropout_at_rank = false;
  double label_smoothing = 0;
  uint64_t seed = 0;
  int recompute_every = 0;
  int64_t head_chunk_rows = 64;
  bool train = true;     // make the plan with gradients
  bool evaluate = true;  // make the plan without
  bool moments = true;   // false where no optimizer follows (dump)
  // Experts: added to the loss with these coefficients (ops.h, router_loss).
  double aux_coef = 0, z_coef = 0;
  bool aux_joint = false;
};

// What the routers of one micro-batch did: losses without coefficient, the share of assignments dropped for a capacity, and each
// expert's share of the assignments, layer by layer. Empty for models without experts.
struct RouterFigures {
  double aux = 0, z = 0, dropped = 0;
  int64_t experts = 0;
  std::span<const double> shares;
};

// Rows of the head at once where memory is no concern: the more, the less often the head is laid out again for them; 256 at most, as the
// gain ends there, and no more than 80 MB of logits, but 64 (a power of two).
int64_t most_head_chunk_rows(int64_t vocab_size);

// Bytes of what a step keeps, known from headers and capacity before anything is allocated.
struct StepBytes {
  size_t weights = 0, trained = 0, arena = 0, scratch = 0;
  size_t total() const { return weights + trained + arena + scratch; }
};

// Forward, loss and gradients of one model on micro-batches, compiled for a capacity. Nothing is allocated while running.
class TrainStep {
 public:
  TrainStep(Context& context, Model& model, AdapterWeights* adapter, const StepOptions& options,
            const BatchCapacity& capacity);

  // Adds the gradient of sum(label_weights * nll) / total_weight + router_share * (aux_coef * aux + z_coef * z) to every trained tensor's; returns
  // that sum. `update` names dropout's draws; router_share is the micro-batch's share of its update's tokens.
  double micro_batch(const Batch& batch, double total_weight, uint64_t update, double router_share = 1);
  double last_cross_entropy() const { return loss_; }  // its first part
  RouterFigures last_routers() const;
  // The first sum without gradients (dropout off).
  double evaluate(const Batch& batch, double total_weight);
  void clear_gradients();

  std::vector<TrainedTensor>& tensors() { return tensors_; }
  const std::vector<TrainedTensor>& tensors() const { return tensors_; }
  // nll of the labels of the last batch, in the batch's order.
  std::span<const float> last_nll() const;
  RunSizes sizes(const Batch& batch) const;
  double flops(const Batch& batch) const { return train_.flops(sizes(batch)); }
  size_t arena_bytes() const { return train_.arena_bytes(); }
  const Plan& plan() const { return train_; }
  // Micro-batches from here on write what each node of plan() takes; an empty span ends that.
  void time_nodes(std::span<double> seconds) { node_seconds_ = seconds; }

 private:
  void make_training(const StepOptions& options);
  void bind(Plan& plan, const DecoderGraph& graph);
  double run(Plan& plan, const DecoderGraph& graph, const Batch& batch, double total_weight, uint64_t update);

  Context* context_;
  Model* model_;
  AdapterWeights* adapter_;
  DecoderGraph train_graph_, eval_graph_;
  Plan train_, eval_;
  Buffer arena_;  // of both plans
  std::vector<TrainedTensor> tensors_;
  RopeTable rope_;
  std::vector<double> weights_;
  std::vector<uint64_t> row_keys_;
  double loss_ = 0;
  double router_share_ = 1, aux_coef_ = 0, z_coef_ = 0;
  int64_t num_experts_ = 0;
  std::vector<double> router_values_;
  const Plan* last_plan_ = nullptr;
  Value last_nll_;
  RunSizes last_sizes_;
  std::span<double> node_seconds_;
};

// What a step would take.
StepBytes step_bytes(const ModelFolder& folder, const AdapterSites* sites, const StepOptions& options,
                     const BatchCapacity& capacity, int num_threads);

}  // namespace graft
