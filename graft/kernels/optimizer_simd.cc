#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/optimizer_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/optimizer_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void adamw_range(const AdamWScalars<float>& s, const float* grad, float* param, float* m, float* v,
                 int64_t n) noexcept {
  const AdamWScalars<float> c = s;
  for_each(n, [=](auto d, int64_t j) HWY_ATTR {
    const auto tiny = hn::Set(d, 0x1p-100f);
    const auto g = hn::Mul(hn::Set(d, c.grad_scale), hn::LoadU(d, grad + j));
    auto mj = hn::MulAdd(hn::Set(d, c.beta1), hn::LoadU(d, m + j), hn::Mul(hn::Set(d, c.one_minus_beta1), g));
    auto vj =
        hn::MulAdd(hn::Set(d, c.beta2), hn::LoadU(d, v + j), hn::Mul(hn::Set(d, c.one_minus_beta2), hn::Mul(g, g)));
    mj = hn::IfThenZeroElse(hn::Lt(hn::Abs(mj), tiny), mj);
    vj = hn::IfThenZeroElse(hn::Lt(vj, tiny), vj);
    hn::StoreU(mj, d, m + j);
    hn::StoreU(vj, d, v + j);
    const auto below = hn::MulAdd(hn::Sqrt(vj), hn::Set(d, c.root_scale), hn::Set(d, c.eps));
    const auto update = hn::Div(hn::Mul(hn::Set(d, c.step), mj), below);
    hn::StoreU(hn::MulSub(hn::LoadU(d, param + j), hn::Set(d, c.decay), update), d, param + j);
  });
}

void sgd_range(float decay, float step, const float* grad, float* param, int64_t n) noexcept {
  for_each(n, [=](auto d, int64_t j) HWY_ATTR {
    const auto kept = hn::Mul(hn::LoadU(d, param + j), hn::Set(d, decay));
    hn::StoreU(hn::NegMulAdd(hn::Set(d, step), hn::LoadU(d, grad + j), kept), d, param + j);
  });
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
constexpr OptimizerTable<float> kOptimizerTable = {adamw_range, sgd_range, sum_squares_block, first_non_finite_range};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const OptimizerTable<float>* optimizer_simd() noexcept { return GRAFT_SIMD_TABLE(kOptimizerTable); }
}  // namespace graft
#endif
