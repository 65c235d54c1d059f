#include "graft/kernels/select.h"

#include <algorithm>
#include <numeric>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

enum class DataKind { kRandom, kTies, kConstant, kTwoValues, kSorted, kPeriodic, kHeavyTail };
constexpr DataKind kAll[] = {DataKind::kRandom, DataKind::kTies,     DataKind::kConstant, DataKind::kTwoValues,
                             DataKind::kSorted, DataKind::kPeriodic, DataKind::kHeavyTail};

std::vector<float> make(DataKind data, int64_t n) {
  std::vector<float> x = test::random_values<float>(n, 5, 3);
  for (size_t i = 0; i < x.size(); ++i) {
    if (data == DataKind::kTies) x[i] = std::floor(x[i]);
    if (data == DataKind::kConstant) x[i] = -2.5f;
    if (data == DataKind::kTwoValues) x[i] = x[i] < 0.3f ? 1.0f : 2.0f;
    if (data == DataKind::kPeriodic) x[i] = static_cast<float>(i % 64);
    if (data == DataKind::kHeavyTail) x[i] = i % 1000 == 1 ? INFINITY : i % 1000 == 2 ? -INFINITY : std::exp(20 * x[i]);
  }
  if (data == DataKind::kSorted) std::sort(x.begin(), x.end());
  return x;
}

double quantile(const std::vector<float>& sorted, double p) {
  const double h = static_cast<double>(sorted.size() - 1) * p / 100;
  const auto k = static_cast<size_t>(h);
  const double share = h - static_cast<double>(k), at = static_cast<double>(sorted[k]);
  if (share == 0 || sorted[k] == sorted[k + 1]) return at;
  return at + share * (static_cast<double>(sorted[k + 1]) - at);
}

TEST(Select, MedianAndPercentilesOfAnyData) {
  const std::vector<float> p = {0, 0.01f, 25, 33.3f, 50, 75, 90, 99, 99.999f, 100};
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const int64_t n : {1, 2, 7, 8, 1000, 4097, 16385, 100003, 300000}) {
      for (const DataKind data : kAll) {
        const std::vector<float> x = make(data, n);
        std::vector<float> sorted = x;
        std::sort(sorted.begin(), sorted.end());
        test::TestContext t(level == top ? 3 : 1);
        t.context.reserve(select_scratch(n));
        std::vector<float> y(p.size());
        percentile_select(t.context, x, p, y);
        for (size_t i = 0; i < p.size(); ++i) {
          const auto want = static_cast<float>(quantile(sorted, static_cast<double>(p[i])));
          ASSERT_TRUE(y[i] == want || (y[i] != y[i] && want != want))
              << y[i] << ", expected " << want << " at " << p[i] << " of " << n << ", data " << static_cast<int>(data);
        }
        EXPECT_EQ(median_select(t.context, x), static_cast<float>(quantile(sorted, 50)));
      }
    }
  }
  set_cpu_level(top);
}

TEST(Select, NanAnywhereAndNothing) {
  test::TestContext t(2);
  t.context.reserve(select_scratch(200000));
  EXPECT_TRUE(std::isnan(median_select(t.context, {})));
  for (const int64_t n : {1, 100, 200000}) {
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      std::vector<float> x = make(DataKind::kRandom, n), y(2);
      x[static_cast<size_t>(at)] = NAN;
      EXPECT_TRUE(std::isnan(median_select(t.context, x)));
      percentile_select(t.context, x, std::vector<float>{0, 100}, y);
      EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
    }
  }
  std::vector<float> none(1);
  percentile_select(t.context, {}, std::vector<float>{50}, none);
  EXPECT_TRUE(std::isnan(none[0]));
  std::vector<float> wrong(4);
  percentile_select(t.context, std::vector<float>{1, 2, 3}, std::vector<float>{-0.5f, 50, 100.5f, NAN}, wrong);
  EXPECT_TRUE(std::isnan(wrong[0]) && wrong[1] == 2 && std::isnan(wrong[2]) && std::isnan(wrong[3]));
  EXPECT_EQ(median_select(t.context, std::vector<float>{INFINITY, INFINITY}), INFINITY);
  EXPECT_FALSE(std::signbit(median_select(t.context, std::vector<float>{-0.0f})));
}

// Ties in order of the index, NaN first, and k from nothing to everything.
TEST(Select, TopKOfAnyData) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const int64_t n : {1, 7, 1000, 5000, 16385, 100003}) {
      for (const DataKind data : kAll) {
        for (const bool nan : {false, true}) {
          std::vector<float> x = make(data, n);
          for (size_t i = 3; nan && i < x.size(); i += 777) x[i] = i % 2 == 0 ? NAN : -NAN;
          if (nan && n > 5) x[4] = 0.0f, x[5] = -0.0f;
          std::vector<int32_t> order(x.size());
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            const float u = x[static_cast<size_t>(a)], v = x[static_cast<size_t>(b)];
            return u != u ? v == v : u > v;
          });
          test::TestContext t(level == top ? 3 : 1);
          t.context.reserve(select_scratch(n));
          for (const int64_t k : {int64_t{0}, int64_t{1}, std::min<int64_t>(n, 100), n / 2, n}) {
            std::vector<float> values(static_cast<size_t>(k));
            std::vector<int32_t> indices(static_cast<size_t>(k));
            topk_select(t.context, x, values, indices);
            for (size_t i = 0; i < indices.size(); ++i) {
              ASSERT_EQ(indices[i], order[i]) << i << " of " << n << ", data " << static_cast<int>(data);
              ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(x[static_cast<size_t>(order[i])]));
            }
          }
        }
      }
    }
  }
  set_cpu_level(top);
}

TEST(Select, WrongInputsAreErrors) {
  KernelCall call;
  call.add_input("x", DType::kF32, {6});
  EXPECT_THROW(find_kernel("percentile_select")->prepare(call), Error);
  for (const char* k : {"-1", "7", "many"}) {
    call.set_parameter("k", k);
    EXPECT_THROW(find_kernel("topk_select")->prepare(call), Error);
  }
  call.add_input("p", DType::kI32, {1});
  EXPECT_THROW(find_kernel("percentile_select")->prepare(call), Error);
  KernelCall none;
  EXPECT_THROW(find_kernel("median_select")->prepare(none), Error);
}

}  // namespace
}  // namespace graft
