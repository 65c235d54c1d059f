#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graft/kernels/context.h"

namespace graft {

struct MergeConfig {
  std::string model;
  std::vector<std::pair<std::string, double>> adapters;  // path, weight
  std::string out;
  std::string dtype = "keep";  // keep | f32 | bf16 | f16
  uint64_t shard_bytes = uint64_t{5} << 30;
  bool overwrite = false;
  std::function<void()> progress = {};  // called between blocks of rows; what it throws ends the merge, nothing is left
};

struct MergeReport {
  int64_t num_merged = 0, num_copied = 0;
  uint64_t bytes = 0;
};

// Folds adapters into their base: W' = W + sum_i weight_i * scaling_i * B_i A_i in f32, rounded once (nearest even); DoRA adds weight * (W_dora - W).
// Writes a complete model folder, one block of rows in memory at a time. Tensors that no adapter touches keep their bytes. A saved module
// (modules_to_save) replaces the base's and takes one adapter of weight 1. A tied head that an adapter changes is untied.
MergeReport merge(Context& context, const MergeConfig& config);

}  // namespace graft
