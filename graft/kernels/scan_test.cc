#include "graft/kernels/scan.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

std::vector<uint32_t> random_words(int64_t n, uint64_t seed) {
  const RandomStream stream(seed, 1);
  std::vector<uint32_t> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = stream.word(i);
  return x;
}

using Scan = void (*)(Context&, std::span<const uint32_t>, std::span<uint32_t>) noexcept;

// Around vectors, tasks, and the size from which outputs are stored past the cache; the sums wrap around.
TEST(Scan, SumsOfEveryPrefix) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const int64_t n : {0, 1, 2, 15, 16, 17, 63, 65, 1009, 32768, 32769, 100003, 4194304 + 7}) {
      const std::vector<uint32_t> x = random_words(n + 1, static_cast<uint64_t>(n));
      for (const int threads : {1, 2, 3}) {
        test::TestContext t(threads);
        t.context.reserve(scan_scratch(n));
        for (const int64_t offset : {0, 1}) {  // unaligned
          if (offset == 1 && n > 200000 && threads > 1) continue;
          const auto in = std::span(x).subspan(static_cast<size_t>(offset), static_cast<size_t>(n));
          std::vector<uint32_t> y(static_cast<size_t>(n + offset)), z(y.size());
          const auto inclusive = std::span(y).subspan(static_cast<size_t>(offset));
          const auto exclusive = std::span(z).subspan(static_cast<size_t>(offset));
          scan_inclusive(t.context, in, inclusive);
          scan_exclusive(t.context, in, exclusive);
          uint32_t sum = 0;
          for (size_t i = 0; i < in.size(); ++i) {
            ASSERT_EQ(exclusive[i], sum) << i << " of " << n;
            sum += in[i];
            ASSERT_EQ(inclusive[i], sum) << i << " of " << n;
          }
        }
      }
    }
  }
  set_cpu_level(top);
}

TEST(Scan, InPlace) {
  for (const Scan scan : {Scan{scan_inclusive}, Scan{scan_exclusive}}) {
    for (const int64_t n : {37, 200001}) {
      std::vector<uint32_t> x = random_words(n, 5), y(x.size());
      test::TestContext t(3);
      t.context.reserve(scan_scratch(n));
      scan(t.context, x, y);
      scan(t.context, x, x);
      EXPECT_EQ(x, y);
    }
  }
}

// The scan of two parts one after the other: the second starts where the first ended.
TEST(Scan, OfAConcatenation) {
  const std::vector<uint32_t> x = random_words(70000, 9);
  test::TestContext t(2);
  t.context.reserve(scan_scratch(70000));
  std::vector<uint32_t> all(x.size()), first(40000), second(30000);
  scan_inclusive(t.context, x, all);
  scan_inclusive(t.context, std::span(x).first(40000), first);
  scan_inclusive(t.context, std::span(x).subspan(40000), second);
  for (uint32_t& v : second) v += first.back();
  first.insert(first.end(), second.begin(), second.end());
  EXPECT_EQ(all, first);
}

TEST(Scan, WrongInputsAreErrors) {
  for (const char* name : {"scan_exclusive", "scan_inclusive"}) {
    KernelCall none, real;
    EXPECT_THROW(find_kernel(name)->prepare(none), Error);
    real.add_input("x", DType::kF32, {6});
    EXPECT_THROW(find_kernel(name)->prepare(real), Error);
  }
}

}  // namespace
}  // namespace graft
