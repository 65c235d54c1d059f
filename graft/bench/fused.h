#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/base/thread_pool.h"
#include "graft/kernels/registry.h"

namespace graft {

// A fused kernel's call as the single kernels that give its result, on the same inputs: what a pass over memory less is measured against.
struct Unfused {
  struct Step {
    const KernelInfo* kernel;
    std::unique_ptr<KernelCall> call;  // prepared; reads the fused call's inputs and earlier outputs where they lie
  };
  struct Result {
    std::string output;  // of the fused kernel
    const KernelTensor* tensor;
  };

  // Whether there is such a sequence for a kernel.
  static bool knows(const KernelInfo& kernel);
  // For a call that lives as long. Scratch of all steps is reserved.
  Unfused(const KernelInfo& kernel, const KernelCall& call, Context& context);
  void run(Context& context) const;

  double bytes() const;      // as the specification counts them, of all steps
  std::string text() const;  // "layer_norm, map_fma"

  std::vector<Step> steps;
  std::vector<Result> results;
  std::vector<std::unique_ptr<KernelTensor>> constants;  // operands that single kernels need, made once
};

// A fused kernel and its single kernels, timed in turns: medians of one call.
struct FusedTiming {
  std::string kernel, steps;
  int threads = 1;
  double bytes = 0, unfused_bytes = 0, ns = 0, unfused_ns = 0;
  double speed() const { return unfused_ns / ns; }
  double bytes_saved() const { return 1 - bytes / unfused_bytes; }
};
// On the inputs and parameters of a call.
FusedTiming time_fused(ThreadPool& pool, const KernelInfo& kernel, const KernelCall& inputs, double seconds);

}  // namespace graft
