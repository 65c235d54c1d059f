#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/base/json.h"
#include "graft/formats/model_config.h"

namespace graft {

// The 22 scenarios of spec/moe.md, section 7, on graft_moe models made in memory: ids i mod V, targets (i + 1) mod V, i counting all tokens of
// the batch; f32. A training step is forward, backward, norm, clipping at 1 and AdamW (1e-3, 0.9, 0.95, decay 0.1), with 0.01 times the
// auxiliary loss.

// Sizes of a model: "tiny", "small" or "full" (spec/moe.md, section 1), "layer_experts" or "layer_dense" (below). The config is graft_moe's, as `graft init` takes it.
Json moe_config(const std::string& name);

struct MoeScenario {
  enum class Work { kForward, kTrain, kCold, kMatmul, kSoftmax, kRmsNorm, kLayer };
  std::string id, axis;
  Work work = Work::kForward;
  std::string model;           // tiny or small; empty for a kernel
  int64_t batch = 0, seq = 0;  // of a model
  int workers = 1;             // each with a model of its own, starting together
  // Timed together and divided, where one call is too short for a clock.
  int calls = 1;
};
std::span<const MoeScenario> moe_scenarios();
// One of the 22, or of two more: layer_experts and layer_dense, forward and backward (no optimizer) of one feed-forward layer with its norm on 512
// tokens: hidden 1,024, 8 experts of 2,048 of which each token takes 2, with the router; and a dense layer of the same operations a token. Only that
// layer's nodes are timed.
const MoeScenario* find_moe_scenario(std::string_view id);

// One run of a scenario, on the clocks.
struct MoeTrial {
  int64_t wall_ns = 0, cpu_ns = 0;
  int64_t allocations = 0, allocated_bytes = 0;  // operator new (where counted) and Buffers
};

// A scenario ready to run: models made, plans compiled. `threads`: of each worker.
class MoeCase {
 public:
  MoeCase(const MoeScenario& scenario, int threads, uint64_t seed);
  ~MoeCase();
  MoeCase(const MoeCase&) = delete;
  MoeCase& operator=(const MoeCase&) = delete;

  MoeTrial run();
  // What the last run wrote: logits, the tokens' losses, or the kernel's result.
  std::vector<std::span<const float>> outputs() const;
  double flops() const;  // of one run of all workers: matrix products and attention

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct MoeBenchOptions {
  std::vector<const MoeScenario*> scenarios;
  int threads = 1, warmup = 3, trials = 10;
  uint64_t seed = 42;
};
// Every scenario with the keys of section 7. first() is called once, when the first run of the first scenario is over; done(scenario) after each.
void bench_moe(const MoeBenchOptions& options, const std::function<void()>& first,
               const std::function<void(const Json&)>& done);

}  // namespace graft
