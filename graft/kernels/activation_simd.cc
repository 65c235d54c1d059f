#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/activation_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/activation_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void swiglu_rows(View<const float, 2> gate, View<const float, 2> up, View<float, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const float *g = gate.row(i), *u = up.row(i);
    float* out = y.row(i);
    for_each(y.extent(1), [=](auto d, int64_t j) HWY_ATTR {
      const auto z = hn::LoadU(d, g + j);
      const auto silu = hn::Div(z, hn::Add(hn::Set(d, 1.0f), exp_f32(d, hn::Neg(z))));
      hn::StoreU(hn::Mul(silu, hn::LoadU(d, u + j)), d, out + j);
    });
  }
}

void swiglu_backward_rows(View<const float, 2> dy, View<const float, 2> gate, View<const float, 2> up,
                          View<float, 2> dgate, View<float, 2> dup) noexcept {
  for (int64_t i = 0; i < dy.extent(0); ++i) {
    const float *upstream = dy.row(i), *g = gate.row(i), *u = up.row(i);
    float *dg = dgate.row(i), *du = dup.row(i);
    for_each(dy.extent(1), [=](auto d, int64_t j) HWY_ATTR {
      const auto one = hn::Set(d, 1.0f);
      const auto dj = hn::LoadU(d, upstream + j), gj = hn::LoadU(d, g + j), uj = hn::LoadU(d, u + j);
      const auto s = hn::Div(one, hn::Add(one, exp_f32(d, hn::Neg(gj))));
      const auto slope = hn::Mul(s, hn::MulAdd(gj, hn::Sub(one, s), one));
      hn::StoreU(hn::Mul(hn::Mul(dj, uj), slope), d, dg + j);
      hn::StoreU(hn::Mul(dj, hn::Mul(gj, s)), d, du + j);
    });
  }
}

}  // namespace
constexpr ActivationTable<float> kActivationTable = {swiglu_rows, swiglu_backward_rows};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const ActivationTable<float>* activation_simd() noexcept { return GRAFT_SIMD_TABLE(kActivationTable); }
}  // namespace graft
#endif
