#pragma once

#include <cstdint>
#include <string>

#include "graft/bench/machine.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// Training and generation of a whole model on random tokens: what a user's run would do, without its data.
struct ModelBenchOptions {
  std::string model;  // folder
  Compute compute = Compute::kF32;
  int64_t batch_size = 4, max_length = 256;
  int64_t rank = 8;
  std::string targets = "all-linear";
  double trained = 1.0;  // share of the tokens that have a label
  int64_t steps = 5;     // timed, after one that is not
  uint64_t seed = 0;
};

struct TrainBench {
  int64_t tokens_per_step = 0, steps = 0;
  double load_seconds = 0;  // model folder to first forward
  double median_step_seconds = 0, q1 = 0, q3 = 0;
  double tokens_per_second = 0;  // tokens / median
  double steps_per_second = 0;
  double flops_per_step = 0;  // of the matrix products and attention
  double gflops = 0, share_of_peak = 0;
  int64_t peak_memory_bytes = 0;
  double loss = 0;
};
// Measures the machine after the model, so that the peak memory is the model's alone.
TrainBench bench_train(Context& context, const ModelBenchOptions& options, MachineReport& machine);

struct GenerateBench {
  int64_t prompt_tokens = 0, new_tokens = 0;
  double load_seconds = 0;
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;
  double bytes_per_token = 0;  // weights that a token reads, and its cache
  double gbps = 0, share_of_read = 0;
  int64_t peak_memory_bytes = 0;
};
GenerateBench bench_generate(Context& context, const ModelBenchOptions& options, MachineReport& machine);

}  // namespace graft
