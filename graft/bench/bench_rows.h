#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/base/thread_pool.h"

namespace graft {

// One timed row kernel. Its result had the scalar reference's bits before it was timed; Error if not.
struct RowBenchRow {
  std::string kernel;  // "rms_norm", "swiglu_backward", …
  int64_t rows = 0, columns = 0;
  int threads = 1;
  double seconds = 0;       // median
  double best_seconds = 0;  // quickest run: what a busy machine hides from the median
  double gbps = 0;          // least bytes read and written / median seconds (10^9 bytes)
  double best_gbps = 0;
};

struct RowBenchOptions {
  int64_t rows = 1024, columns = 1024;
  double seconds_per_case = 0.25;
};
std::vector<RowBenchRow> bench_rows(ThreadPool& pool, const RowBenchOptions& options);

}  // namespace graft
