#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/pointwise_loss_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
#include "graft/kernels/row_io_inl.h"
// clang-format on

#include "graft/kernels/pointwise_loss_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// The sum of a block; add(d, p, t, lanes) takes in the terms of p and t.
template <class Add>
HWY_INLINE float sum_terms(const float* pred, const float* target, int64_t n, const Add& add) {
  return fold_block(
      n, 0.0f,
      [&](const auto& io, int64_t j, auto acc)
          HWY_ATTR { return add(io.d, io.load(pred + j), io.load(target + j), acc); },
      AddLanes());
}

float mse(const float* pred, const float* target, float /*parameter*/, int64_t n) noexcept {
  return sum_terms(pred, target, n, [](auto, auto p, auto t, auto acc) HWY_ATTR {
    const auto d = hn::Sub(p, t);
    return hn::MulAdd(d, d, acc);
  });
}

float mae(const float* pred, const float* target, float /*parameter*/, int64_t n) noexcept {
  return sum_terms(pred, target, n,
                   [](auto, auto p, auto t, auto acc) HWY_ATTR { return hn::Add(acc, hn::Abs(hn::Sub(p, t))); });
}

float huber(const float* pred, const float* target, float delta, int64_t n) noexcept {
  return sum_terms(pred, target, n, [=](auto tag, auto p, auto t, auto acc) HWY_ATTR {
    const auto d = hn::Abs(hn::Sub(p, t));
    const auto c = at_most(hn::Set(tag, delta), d);
    return hn::MulAdd(c, hn::MulAdd(hn::Set(tag, -0.5f), c, d), acc);
  });
}

float kl_div(const float* pred, const float* target, float eps, int64_t n) noexcept {
  return sum_terms(pred, target, n, [=](auto d, auto raw, auto t, auto acc) HWY_ATTR {
    const auto p = at_least(hn::Set(d, eps), raw);
    const auto none = hn::Le(t, hn::Zero(d));
    const auto log = hn::IfThenZeroElse(none, log_f32(d, hn::Div(t, p)));
    return hn::MulAdd(hn::IfThenZeroElse(none, t), log, acc);
  });
}

// log_near of the reference.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V log_near(D d, V w, V near) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, w);
  const auto k = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3F2AAAAB)));
  const V own = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(k))), hn::Set(d, 1.0f));
  const V f = hn::IfThenElse(hn::RebindMask(d, hn::Eq(k, hn::Zero(di))), near, own);
  return hn::MulAdd(hn::ConvertTo(d, k), hn::Set(d, 0x1.62e430p-1f), log_series(d, f));
}

float bce(const float* pred, const float* target, float eps, int64_t n) noexcept {
  return sum_terms(pred, target, n, [=](auto d, auto raw, auto t, auto acc) HWY_ATTR {
    const auto one = hn::Set(d, 1.0f), zero = hn::Zero(d);
    const auto p = at_least(hn::Set(d, eps), at_most(hn::Set(d, kLargestProbability), raw));
    const auto yes = hn::Eq(t, one);
    auto log = zero;
    if (hn::AllTrue(d, hn::Or(yes, hn::Eq(t, zero)))) {
      // Labels of 0 and 1, the usual: the other logarithm would count 0 times, so one of them is enough, for the same bits.
      const auto less = hn::Sub(p, one);
      log = log_near(d, hn::IfThenElse(yes, p, hn::Neg(less)), hn::IfThenElse(yes, less, hn::Neg(p)));
    } else {
      const auto to_yes = log_near(d, p, hn::Sub(p, one)), to_no = log_near(d, hn::Sub(one, p), hn::Neg(p));
      log = hn::MulAdd(t, to_yes, hn::Mul(hn::Sub(one, t), to_no));
    }
    return hn::Add(acc, hn::MulAdd(p, zero, hn::Neg(log)));
  });
}

}  // namespace

constexpr PointwiseLossTable kPointwiseLossTable = {mse, mae, huber, kl_div, bce};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const PointwiseLossTable* pointwise_loss_simd() noexcept { return GRAFT_SIMD_TABLE(kPointwiseLossTable); }
}  // namespace graft
#endif
