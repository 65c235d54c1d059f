#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/moe_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/moe_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void scatter(const float* c, int64_t c_stride, int64_t rows, const int32_t* assignments, int64_t top_k,
             const float* weights, float* y, int64_t y_stride, int64_t n) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    const float weight = weights != nullptr ? weights[assignments[i]] : 1.0f;
    const float* from = c + i * c_stride;
    float* to = y + assignments[i] / top_k * y_stride;
    for_each(n, [=](auto d, int64_t j) HWY_ATTR {
      hn::StoreU(hn::MulAdd(hn::Set(d, weight), hn::LoadU(d, from + j), hn::LoadU(d, to + j)), d, to + j);
    });
  }
}

float dot(const float* a, const float* b, int64_t n) noexcept {
  return sum_row(n, [a, b](auto d, int64_t j, auto acc)
                        HWY_ATTR { return hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), acc); });
}

void scale(const float* x, float s, const float* residual, float* y, int64_t n) noexcept {
  for_each(n, [=](auto d, int64_t j) HWY_ATTR {
    const auto v = hn::LoadU(d, x + j), f = hn::Set(d, s);
    hn::StoreU(residual != nullptr ? hn::MulAdd(v, f, hn::LoadU(d, residual + j)) : hn::Mul(v, f), d, y + j);
  });
}

}  // namespace
constexpr MoeTable<float> kMoeTable = {scatter, dot, scale};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const MoeTable<float>* moe_simd() noexcept { return GRAFT_SIMD_TABLE(kMoeTable); }
}  // namespace graft
#endif
