#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/norm_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include <cmath>

#include "graft/kernels/norm_table.h"
#include "graft/kernels/rows.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void rms_norm_rows(View<const float, 2> x, const float* weight, float eps, View<float, 2> y, float* rrms) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float* in = x.row(i);
    float* out = y.row(i);
    const float squares = sum_row(n, [in](auto d, int64_t j, auto acc) HWY_ATTR {
      const auto v = hn::LoadU(d, in + j);
      return hn::MulAdd(v, v, acc);
    });
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
    if (rrms != nullptr) rrms[i] = r;
    for_each(n, [=](auto d, int64_t j) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, in + j), hn::Set(d, r)), hn::LoadU(d, weight + j)), d, out + j);
    });
  }
}

void rms_norm_backward_rows(View<const float, 2> dy, View<const float, 2> x, const float* weight, const float* rrms,
                            View<const float, 2> residual, View<float, 2> dx) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float *up = dy.row(i), *in = x.row(i);
    const float r = rrms[i];
    float* out = dx.row(i);
    const float dot = sum_row(n, [=](auto d, int64_t j, auto acc) HWY_ATTR {
      return hn::MulAdd(hn::Mul(hn::LoadU(d, up + j), hn::LoadU(d, weight + j)), hn::LoadU(d, in + j), acc);
    });
    const float c = (r * r) * (dot / static_cast<float>(n));
    const auto inner = [=](auto d, int64_t j) HWY_ATTR {
      const auto g = hn::Mul(hn::LoadU(d, up + j), hn::LoadU(d, weight + j));
      return hn::NegMulAdd(hn::LoadU(d, in + j), hn::Set(d, c), g);
    };
    if (residual.data() != nullptr) {
      const float* add = residual.row(i);
      for_each(n, [=](auto d, int64_t j) HWY_ATTR {
        hn::StoreU(hn::MulAdd(hn::Set(d, r), inner(d, j), hn::LoadU(d, add + j)), d, out + j);
      });
    } else {
      for_each(n, [=](auto d, int64_t j) HWY_ATTR { hn::StoreU(hn::Mul(hn::Set(d, r), inner(d, j)), d, out + j); });
    }
  }
}

void rms_norm_dweight_columns(View<const float, 2> dy, View<const float, 2> x, const float* rrms,
                              float* dweight) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0);
  HWY_ALIGN float block[kStripe];
  float* sums = block;
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    for (int64_t j = 0; j < n; ++j) sums[j] = 0;
    const int64_t end = begin + kRowSumBlock < rows ? begin + kRowSumBlock : rows;
    for (int64_t i = begin; i < end; ++i) {
      const float *up = dy.row(i), *in = x.row(i);
      const float r = rrms[i];
      for_each(n, [=](auto d, int64_t j) HWY_ATTR {
        const auto scaled = hn::Mul(hn::LoadU(d, in + j), hn::Set(d, r));
        hn::StoreU(hn::MulAdd(hn::LoadU(d, up + j), scaled, hn::LoadU(d, sums + j)), d, sums + j);
      });
    }
    for (int64_t j = 0; j < n; ++j) dweight[j] += sums[j];
  }
}

}  // namespace
constexpr NormTable<float> kNormTable = {rms_norm_rows, rms_norm_backward_rows, rms_norm_dweight_columns};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const NormTable<float>* norm_simd() noexcept { return GRAFT_SIMD_TABLE(kNormTable); }
}  // namespace graft
#endif
