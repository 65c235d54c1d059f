#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/optimizer_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
#include "graft/kernels/row_io_inl.h"
// clang-format on

#include "graft/kernels/optimizer_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// x clamped to [-bound, bound]; NaN stays.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V clamped(D d, V x, float bound) {
  return at_least(hn::Set(d, -bound), at_most(hn::Set(d, bound), x));
}

template <bool kClip>
void adamw_range(const AdamWScalars<float>& s, const float* grad, float* param, float* m, float* v,
                 int64_t n) noexcept {
  const AdamWScalars<float> c = s;
  each_lane(n, [=](const auto& io, int64_t j) HWY_ATTR {
    const auto d = io.d;
    const auto tiny = hn::Set(d, 0x1p-100f);
    auto g = io.load(grad + j);
    if constexpr (kClip) g = clamped(d, g, c.clip);
    g = hn::Mul(hn::Set(d, c.grad_scale), g);
    auto mj = io.load(m + j);
    mj = hn::MulAdd(hn::Set(d, c.one_minus_beta1), hn::Sub(g, mj), mj);
    auto vj = hn::MulAdd(hn::Set(d, c.beta2), io.load(v + j), hn::Mul(hn::Set(d, c.one_minus_beta2), hn::Mul(g, g)));
    mj = hn::IfThenZeroElse(hn::Lt(hn::Abs(mj), tiny), mj);
    vj = hn::IfThenZeroElse(hn::Lt(vj, tiny), vj);
    io.store(mj, m + j);
    io.store(vj, v + j);
    const auto below = hn::MulAdd(hn::Sqrt(vj), hn::Set(d, c.root_scale), hn::Set(d, c.eps));
    const auto update = hn::Div(hn::Mul(hn::Set(d, c.step), mj), below);
    io.store(hn::MulSub(io.load(param + j), hn::Set(d, c.decay), update), param + j);
  });
}

void sgd_range(float decay, float step, const float* grad, float* param, int64_t n) noexcept {
  each_lane(n, [=](const auto& io, int64_t j) HWY_ATTR {
    const auto kept = hn::Mul(io.load(param + j), hn::Set(io.d, decay));
    io.store(hn::NegMulAdd(hn::Set(io.d, step), io.load(grad + j), kept), param + j);
  });
}

void sgd_momentum_range(float lr, float momentum, const float* grad, float* param, float* velocity,
                        int64_t n) noexcept {
  each_lane(n, [=](const auto& io, int64_t j) HWY_ATTR {
    const auto v = hn::MulAdd(hn::Set(io.d, momentum), io.load(velocity + j), io.load(grad + j));
    io.store(v, velocity + j);
    io.store(hn::NegMulAdd(hn::Set(io.d, lr), v, io.load(param + j)), param + j);
  });
}

void scale_range(float by, const float* x, float* y, int64_t n, bool stream) noexcept {
  fill_row(y, n, stream,
           [=](const auto& io, int64_t j) HWY_ATTR { return hn::Mul(hn::Set(io.d, by), io.load(x + j)); });
  fence_stream(stream);
}

void clamp_range(float bound, const float* x, float* y, int64_t n, bool stream) noexcept {
  fill_row(y, n, stream, [=](const auto& io, int64_t j) HWY_ATTR { return clamped(io.d, io.load(x + j), bound); });
  fence_stream(stream);
}

double sum_squares_block(const float* x, int64_t n) noexcept {
  return reduce_block(
      hn::CappedTag<double, 8>(), n, 0.0,
      [x](auto d, int64_t j, auto acc) HWY_ATTR {
        const auto value = hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, decltype(d)>(), x + j));
        return hn::MulAdd(value, value, acc);
      },
      AddLanes());
}

int64_t first_non_finite_range(const float* x, int64_t n) noexcept {
  const RowTag d;
  const auto zero = hn::Zero(d);
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) {
    const auto v = hn::LoadU(d, x + i);
    if (!hn::AllTrue(d, hn::Eq(hn::Sub(v, v), zero))) break;
  }
  for (; i < n; ++i) {
    if (!(x[i] - x[i] == 0)) return i;
  }
  return -1;
}

}  // namespace
constexpr OptimizerTable<float> kOptimizerTable = {adamw_range<false>, adamw_range<true>,     sgd_range,
                                                   sum_squares_block,  sgd_momentum_range,    scale_range,
                                                   clamp_range,        first_non_finite_range};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const OptimizerTable<float>* optimizer_simd() noexcept { return GRAFT_SIMD_TABLE(kOptimizerTable); }
}  // namespace graft
#endif
