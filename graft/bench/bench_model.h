#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

// All nodes of one op in a training step.
struct OpBench {
  std::string op;
  int64_t nodes = 0;
  bool product = false;  // a matrix product (the loss with its head is one, attention is not)
  double seconds = 0;    // of a step, median
  double gflops = 0, share_of_peak = 0;
};

struct TrainBench {
  int64_t tokens_per_step = 0, steps = 0;
  double load_seconds = 0;  // model folder to first forward
  double median_step_seconds = 0, q1 = 0, q3 = 0;
  double tokens_per_second = 0;  // tokens / median
  double steps_per_second = 0;
  double flops_per_step = 0;  // of the matrix products and attention
  double gflops = 0;
  Spread peak_gflops;        // of the arithmetic the run uses, measured in turns with the steps
  Spread share_of_peak;      // each step against the mean of the measurement before and after it
  Spread share_in_products;  // the same for the time spent inside the matrix products
  std::vector<OpBench> ops;  // longest first
  int64_t peak_memory_bytes = 0;
  double loss = 0;
};
// Whatever measures the machine allocates after the model ran, so that the peak memory is the model's alone.
TrainBench bench_train(Context& context, const ModelBenchOptions& options, MachineReport& machine);

struct GenerateBench {
  int64_t prompt_tokens = 0, new_tokens = 0, rounds = 0;
  double load_seconds = 0;
  double prefill_tokens_per_second = 0;
  Spread decode_tokens_per_second;  // of the rounds, 16 tokens each
  double bytes_per_token = 0;       // weights that a token reads, and its cache; mean
  Spread gbps, read_gbps;           // of decoding, and of plain reading in turns with it
  Spread share_of_read;             // each round against the mean of the measurement before and after it
  int64_t peak_memory_bytes = 0;
};
// options.steps rounds.
GenerateBench bench_generate(Context& context, const ModelBenchOptions& options, MachineReport& machine);

}  // namespace graft
