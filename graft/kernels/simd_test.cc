// Also the smallest complete example of a file with vector versions (simd.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/simd_test.cc"
// clang-format off
#include "graft/kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

#ifndef GRAFT_KERNELS_SIMD_TEST_ONCE
#define GRAFT_KERNELS_SIMD_TEST_ONCE
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace graft {
namespace {
struct AxpyTable {
  int lanes;
  void (*axpy)(float a, const float* x, float* y, int n);  // y += a x in one rounding
};
}  // namespace
}  // namespace graft
#endif

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

void axpy(float a, const float* x, float* y, int n) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::MulAdd(hn::Set(d, a), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  }
  for (; i < n; ++i) {  // one lane at a time by the same instruction: std::fma may be a library call here
    const hn::CappedTag<float, 1> d1;
    hn::StoreU(hn::MulAdd(hn::Set(d1, a), hn::LoadU(d1, x + i), hn::LoadU(d1, y + i)), d1, y + i);
  }
}

constexpr AxpyTable kAxpyTable = {HWY_MAX_BYTES / 4, axpy};
}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
namespace {

const AxpyTable* axpy_simd() { return GRAFT_SIMD_TABLE(kAxpyTable); }

TEST(Simd, TableFollowsCpuLevel) {
  const CpuLevel top = cpu_level();
  std::vector<float> want(37);
  for (CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    const AxpyTable* table = axpy_simd();
    if (level == CpuLevel::kScalar) {
      EXPECT_EQ(table, nullptr);
      continue;
    }
    ASSERT_NE(table, nullptr);
#if !defined(GRAFT_SIMD_AVX2_ONLY)
    EXPECT_EQ(table->lanes, level == CpuLevel::kNeon ? 4 : level == CpuLevel::kAvx2 ? 8 : 16);
#endif
    std::vector<float> x(37), y(37);
    for (int i = 0; i < 37; ++i) {
      const auto at = static_cast<size_t>(i);
      x[at] = 1.0f / static_cast<float>(i + 3);
      y[at] = std::sqrt(static_cast<float>(i));
      want[at] = std::fma(0.1f, x[at], y[at]);
    }
    table->axpy(0.1f, x.data(), y.data(), 37);
    EXPECT_EQ(y, want) << cpu_level_name(level);
  }
  set_cpu_level(top);
}

}  // namespace
}  // namespace graft
#endif
