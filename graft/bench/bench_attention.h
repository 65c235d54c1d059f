#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/bench/machine.h"

namespace graft {

// One timed shape of attention. Its result had the scalar reference's bits (checked on a shorter sequence) before it was
// timed; Error if not.
struct AttentionBenchRow {
  std::string pass;  // "forward", "backward", "decode"
  int64_t sequences = 0, length = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int threads = 1;
  double seconds = 0;  // median
  double best_seconds = 0;
  // Operations on pairs of a query and a key that it sees: 4 D forward, 10 D backward (five products).
  double gflops = 0;        // per median second, 10^9
  double best_gflops = 0;   // per quickest run: what a busy machine hides from the median
  double share_of_fma = 0;  // best_gflops / measured peak of f32 multiply-adds
};

struct AttentionBenchOptions {
  std::vector<std::string> passes = {"forward", "backward", "decode"};
  // sequences x length, heads / kv heads, head size; decode takes one query row per sequence against `length` keys.
  struct Shape {
    int64_t sequences, length, num_heads, num_kv_heads, head_dim;
  };
  std::vector<Shape> shapes = {{1, 1024, 14, 2, 64}, {8, 256, 14, 2, 64}, {8, 128, 4, 2, 64}};
  double seconds_per_case = 0.3;
};
std::vector<AttentionBenchRow> bench_attention(ThreadPool& pool, const MachineReport& machine,
                                               const AttentionBenchOptions& options);

}  // namespace graft
