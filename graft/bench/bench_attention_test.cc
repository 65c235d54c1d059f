#include "graft/bench/bench_attention.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

TEST(BenchAttention, TimesPassesThatHaveTheReferencesBits) {
  MachineReport machine;
  machine.fma_gflops = 1000;
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    AttentionBenchOptions options;
    options.shapes = {{2, 70, 4, 2, 24}, {1, 3, 1, 1, 16}};
    options.seconds_per_case = 0;
    const std::vector<AttentionBenchRow> rows = bench_attention(pool, machine, options);
    ASSERT_EQ(rows.size(), 6u);
    for (const AttentionBenchRow& row : rows) {
      EXPECT_GT(row.best_seconds, 0) << row.pass;
      EXPECT_LE(row.best_seconds, row.seconds) << row.pass;
      EXPECT_LE(row.gflops, row.best_gflops) << row.pass;
      EXPECT_DOUBLE_EQ(row.share_of_fma, row.best_gflops / 1000) << row.pass;
      EXPECT_EQ(row.threads, threads);
    }
    options.passes = {"sideways"};
    EXPECT_THROW(bench_attention(pool, machine, options), Error);
    options = {};
    options.shapes = {{1, 8, 3, 2, 16}};
    EXPECT_THROW(bench_attention(pool, machine, options), Error);
  }
}

}  // namespace
}  // namespace graft
