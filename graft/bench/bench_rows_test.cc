#include "graft/bench/bench_rows.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

TEST(BenchRows, TimesKernelsThatHaveTheReferencesBits) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    RowBenchOptions options;
    options.rows = 70;
    options.columns = 130;
    options.seconds_per_case = 0;
    const std::vector<RowBenchRow> rows = bench_rows(pool, options);
    EXPECT_GE(rows.size(), 15u);
    for (const RowBenchRow& row : rows) {
      EXPECT_GT(row.best_seconds, 0) << row.kernel;
      EXPECT_LE(row.best_seconds, row.seconds) << row.kernel;
      EXPECT_LE(row.gbps, row.best_gbps) << row.kernel;
      EXPECT_EQ(row.threads, threads);
    }
    options.rows = 0;
    EXPECT_THROW(bench_rows(pool, options), Error);
  }
}

}  // namespace
}  // namespace graft
