#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

struct EvalConfig {
  std::string model, adapter, data;
  std::vector<std::string> template_args;
  std::string loss_on = "auto";
  int64_t batch_size = 8, max_length = 0, max_tokens = 128;
  int64_t limit = 0;  // rows of exact match; 0: all
  bool exact_match = false;
  Compute compute = Compute::kF32;
  std::function<void(int64_t done, int64_t total)> progress;
};

struct EvalResult {
  double loss = 0;  // weighted mean over trained tokens
  double perplexity = 0;
  int64_t tokens = 0, rows = 0;  // trained tokens
  std::optional<double> exact_match;
};

// Loss of a model (perhaps with an adapter) on DATA, rows made as `train` makes them; exact match: greedy answers of plain argmax without processors,
// compared with the completion after trimming.
EvalResult evaluate(Context& context, const EvalConfig& config);

}  // namespace graft
