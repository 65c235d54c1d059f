#include "graft/bench/kernel_bench.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"
#include "graft/bench/kernel_check.h"
#include "graft/formats/safetensors.h"
#include "tests/support/bad_case.h"
#include "tests/support/error_of.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

TEST(KernelBench, SizesAreReadAndRefused) {
  EXPECT_EQ(parse_bench_size("64K").elements, 65536);
  EXPECT_EQ(parse_bench_size("10M").elements, 10'000'000);
  EXPECT_EQ(parse_bench_size("0.5M").elements, 500'000);
  EXPECT_EQ(parse_bench_size("4xLLC").caches, 4);
  for (const char* bad : {"0", "-1", "1e15", "", "M", "nan", "inf", "1.5", "33xLLC", "0xLLC", "64KB", "1M,2M", " 1"})
    EXPECT_NE(test::error_of([&] { parse_bench_size(bad); }).find("expected 1 to 1G elements"), std::string::npos)
        << bad;
}

TEST(KernelBench, KernelsAreChosenByNameAndDomain) {
  EXPECT_EQ(select_kernels({}).size(), kernel_registry().size());
  const auto some = select_kernels({"reductions", "map_exp", "reduce_sum"});
  EXPECT_EQ(some.front()->name, "reduce_sum");
  EXPECT_EQ(some.back()->name, "map_exp");
  EXPECT_EQ(test::error_of([] {
              select_kernels({"nono", "map_exp", "\x1b[1m"});
            }),
            "no kernel or domain is called 'nono', '\\x1b[1m'");
}

TEST(KernelBench, MixesAreNamedByTheirNearest) {
  EXPECT_EQ(mix_of(100, 0), Mix::kRead);
  EXPECT_EQ(mix_of(8, 4), Mix::kTriad);
  EXPECT_EQ(mix_of(4, 4), Mix::kCopy);
  EXPECT_EQ(mix_of(16, 12), Mix::kCopy);
  EXPECT_EQ(mix_of(0, 4), Mix::kWrite);
  EXPECT_EQ(mix_of(4, 4, true), Mix::kUpdate);
  EXPECT_EQ(mix_of(8, 4, true), Mix::kAccumulate);
}

TEST(KernelBench, TimesEveryVariantAndThreadCountWithItsBound) {
  KernelBench bench;
  bench.prepare(*find_kernel("map_add"), parse_bench_size("64K"));
  for (const std::string& variant : kernel_variants()) {
    for (const int threads : {1, 2}) {
      TimingOptions options;
      options.variant = variant, options.threads = threads, options.seconds = 0.001;
      const KernelTiming t = bench.time(options);
      EXPECT_EQ(t.kernel, "map_add");
      EXPECT_EQ(t.shape, "a[65536], b[65536]");
      EXPECT_EQ(t.bytes, 12 * 65536);
      EXPECT_GE(t.samples, 5);
      EXPECT_LE(t.least_ns, t.q1_ns);
      EXPECT_LE(t.q1_ns, t.median_ns);
      EXPECT_LE(t.median_ns, t.q3_ns);
      EXPECT_GT(t.least_ns, 0);
      EXPECT_GT(t.roof, 0);
      EXPECT_DOUBLE_EQ(t.limit_share, t.bound_ns / t.median_ns);
    }
  }
}

// A kernel of one element whose scalar result is 1; under other levels it is `g_other`.
float g_other = 1;
KernelInfo broken_kernel() {
  KernelInfo k = *find_kernel("map_abs");
  k.run = [](Context&, KernelCall& call) {
    for (float& y : call.out<float>("y")) y = cpu_level() == CpuLevel::kScalar ? 1 : g_other;
  };
  return k;
}

TEST(KernelBench, RefusesToTimeAWrongResult) {
  if (kernel_variants().size() < 2) GTEST_SKIP() << "one variant only";
  KernelInfo kernel = broken_kernel();
  KernelBench bench;
  TimingOptions options;
  options.variant = kernel_variants().back(), options.seconds = 0, options.with_limit = false;
  const auto fault = [&](float other) {
    g_other = other;
    bench.prepare(kernel, parse_bench_size("100"));
    return test::error_of([&] { bench.time(options); });
  };
  EXPECT_EQ(fault(1), "");
  EXPECT_NE(fault(1.000001f).find("other bits"), std::string::npos);
  kernel.outside_contract = "for this test";
  EXPECT_EQ(fault(1.000001f), "");
  EXPECT_NE(fault(1.001f).find("element 0 is 1.00"), std::string::npos);
}

TEST(KernelBench, RefusesWhatNeedsTooMuchMemory) {
  KernelBench bench;
  EXPECT_NE(
      test::error_of([&] { bench.prepare(*find_kernel("map_fma"), parse_bench_size("1G")); }).find("GiB, at most 1"),
      std::string::npos);
}

TEST(KernelBench, DumpsACallThatCheckCanRead) {
  KernelBench bench;
  bench.prepare(*find_kernel("map_clamp"), parse_bench_size("7"));
  const test::TempDir dir;
  dump_call(bench.call(), dir / "call.safetensors");
  const SafetensorsFile file(dir / "call.safetensors");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "in.x");
  EXPECT_EQ(file.tensors()[1].name, "out.y");
}

}  // namespace
}  // namespace graft
