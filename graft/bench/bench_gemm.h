#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/base/dtype.h"
#include "graft/base/thread_pool.h"
#include "graft/bench/machine.h"
#include "graft/kernels/gemm.h"

namespace graft {

// One timed product: the result was compared with f64 before it was timed.
struct GemmBenchRow {
  std::string product;  // "nt": y = x W^T, "nn": dx = dy W, "tn": dw = a^T b
  std::string shape;    // what has this shape, e.g. "qwen2.5-0.5b gate"
  int64_t rows = 0, n = 0, k = 0;
  DType type = DType::kF32;
  Compute compute = Compute::kF32;
  int threads = 1;
  double seconds = 0;        // median
  double best_seconds = 0;   // quickest run: what a busy machine hides from the median
  double gflops = 0;         // 2 rows n k / seconds
  double share_of_peak = 0;  // of the FMA peak, or of the bf16 dot peak for Compute::kBF16 where the CPU has one
  double gbps = 0;           // bytes of the weight / seconds
  double share_of_read = 0;  // of the read bandwidth; above 1 where the weight stays in a cache
};

struct GemmBenchOptions {
  std::vector<int64_t> rows = {1, 8, 64, 504};
  std::vector<DType> types = {DType::kBF16};
  bool f32_compute = true, bf16_compute = true;
  double seconds_per_case = 0.25;
  std::string only;  // run shapes whose name holds this
};
std::vector<GemmBenchRow> bench_gemm(ThreadPool& pool, const MachineReport& machine, const GemmBenchOptions& options);

}  // namespace graft
