#include "graft/bench/bench_gemm.h"

#include <gtest/gtest.h>

#include "graft/base/cpu.h"

namespace graft {
namespace {

TEST(BenchGemm, TimesCheckedProductsAgainstARoof) {
  ThreadPool pool(2);
  MachineReport machine;
  machine.fma_gflops = 100;
  machine.read_gbps = 10;
  GemmBenchOptions options;
  options.rows = {1, 13};
  options.types = {DType::kF32, DType::kBF16};
  options.only = "lora";
  options.seconds_per_case = 0;
  const std::vector<GemmBenchRow> rows = bench_gemm(pool, machine, options);
  ASSERT_EQ(rows.size(), 2u * 2u * 5u);  // types, rows, nt and nn twice and tn
  for (const GemmBenchRow& row : rows) {
    EXPECT_GT(row.seconds, 0);
    EXPECT_LE(row.best_seconds, row.seconds);
    EXPECT_NEAR(row.gflops, 2e-9 * static_cast<double>(row.rows * row.n * row.k) / row.seconds, 1e-9 * row.gflops);
    EXPECT_NEAR(row.share_of_peak, row.gflops / 100, 1e-12);
    EXPECT_NEAR(row.share_of_read, row.gbps / 10, 1e-12);
  }
}

TEST(Machine, ArithmeticPeakIsMeasured) {
  ThreadPool pool(1);
  const double fma = measure_fma_gflops(pool);
  EXPECT_GT(fma, 0.1);
  if (cpu_has_bf16_dot()) {
    EXPECT_GT(measure_bf16_dot_gflops(pool), fma);
  }
}

}  // namespace
}  // namespace graft
