// Highway forms of exp_f32, log_f32 and sincos_turns (math.h): the chains of math_ref_inl.h operation for operation, so the same
// bits. Include after hwy/highway.h; compiled once per target. d is a tag of float lanes.

#if defined(GRAFT_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_MATH_INL_H_
#undef GRAFT_KERNELS_MATH_INL_H_
#else
#define GRAFT_KERNELS_MATH_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// The lesser and the greater of a bound and x; NaN where x is. x86 returns the second operand where one is NaN, Arm the number.
template <class V>
HWY_INLINE V at_most(V bound, V x) {
#if HWY_ARCH_X86
  return hn::Min(bound, x);
#else
  return hn::IfThenElse(hn::Lt(bound, x), bound, x);
#endif
}
template <class V>
HWY_INLINE V at_least(V bound, V x) {
#if HWY_ARCH_X86
  return hn::Max(bound, x);
#else
  return hn::IfThenElse(hn::Gt(bound, x), bound, x);
#endif
}

// p 2^n for a whole n in [-151, 129], rounded once; shifted is n + 1.5 * 2^23.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V scale_by_power(D d, V p, [[maybe_unused]] V n, [[maybe_unused]] V shifted) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(V) == 64) {
    return V{_mm512_scalef_ps(p.raw, n.raw)};
  } else if constexpr (sizeof(V) == 32) {
    return V{_mm256_scalef_ps(p.raw, n.raw)};
  } else {
    return V{_mm_scalef_ps(p.raw, n.raw)};
  }
#else
  const hn::RebindToSigned<D> di;
  const auto k = hn::Sub(hn::BitCast(di, shifted), hn::Set(di, 0x4B400000));
  const auto half = hn::ShiftRight<1>(k);
  const auto bias = hn::Set(di, 127);
  const V first = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const V second = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(k, half), bias)));
  return hn::Mul(hn::Mul(p, first), second);
#endif
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_f32(D d, V x) {
  const V magic = hn::Set(d, 0x1.8p23f);
  const V c = at_least(hn::Set(d, -104.0f), at_most(hn::Set(d, 89.0f), x));
  const V shifted = hn::MulAdd(c, hn::Set(d, 0x1.715476p+0f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::MulAdd(n, hn::Set(d, -0x1.62e430p-1f), c);
  r = hn::MulAdd(n, hn::Set(d, 0x1.05c610p-29f), r);
  V q = hn::MulAdd(hn::Set(d, 0x1.6a4d78p-10f), r, hn::Set(d, 0x1.12398ep-7f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.5558b0p-5f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.555492p-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.fffffcp-2f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f));
  const V p = hn::MulAdd(q, r, hn::Set(d, 1.0f));
  return scale_by_power(d, p, n, shifted);  // NaN: p is NaN whatever n is
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V log_series(D d, V f) {
  V q = hn::MulAdd(hn::Set(d, -0x1.07d222p-3f), f, hn::Set(d, 0x1.1e73a0p-3f));
  q = hn::MulAdd(q, f, hn::Set(d, -0x1.f329c6p-4f));
  q = hn::MulAdd(q, f, hn::Set(d, 0x1.1ed424p-3f));
  q = hn::MulAdd(q, f, hn::Set(d, -0x1.559cdep-3f));
  q = hn::MulAdd(q, f, hn::Set(d, 0x1.99d05ep-3f));
  q = hn::MulAdd(q, f, hn::Set(d, -0x1.fffef6p-3f));
  q = hn::MulAdd(q, f, hn::Set(d, 0x1.555506p-2f));
  q = hn::MulAdd(q, f, hn::Set(d, -0.5f));
  return hn::MulAdd(q, hn::Mul(f, f), f);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V log_f32(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto tiny = hn::Lt(x, hn::Set(d, 0x1p-126f));
  const auto bits = hn::BitCast(di, hn::IfThenElse(tiny, hn::Mul(x, hn::Set(d, 0x1p23f)), x));
  const auto k = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3F2AAAAB)));
  const V one = hn::Set(d, 1.0f);
  const V f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(k))), one);
  const V e = hn::Sub(hn::ConvertTo(d, k), hn::IfThenElseZero(tiny, hn::Set(d, 23.0f)));
  const V y = hn::MulAdd(e, hn::Set(d, 0x1.62e430p-1f), log_series(d, f));
  const V zero = hn::Zero(d), infinity = hn::Inf(d);
  const V positive = hn::IfThenElse(hn::Lt(x, infinity), y, x);
  const V other = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinity), hn::NaN(d));
  return hn::IfThenElse(hn::Gt(x, zero), positive, other);
}

// t: u32 lanes, the angle in turns times 2^32.
template <class D, class U, class V = hn::Vec<D>>
HWY_INLINE void sincos_turns(D d, U t, V* sine, V* cosine) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto quarter = hn::ShiftRight<30>(hn::Add(t, hn::Set(du, 0x20000000u)));
  const V r = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, hn::ShiftLeft<2>(t))), hn::Set(d, 0x1p-32f));
  const V z = hn::Mul(r, r);
  V p = hn::MulAdd(hn::Set(d, -0x1.2d9302p-8f), z, hn::Set(d, 0x1.465e92p-4f));
  p = hn::MulAdd(p, z, hn::Set(d, -0x1.4abbbap-1f));
  p = hn::MulAdd(p, z, hn::Set(d, -0x1.a32bd2p-25f));
  const V s = hn::MulAdd(r, hn::Set(d, 0x1.921fb6p+0f), hn::Mul(r, p));
  V q = hn::MulAdd(hn::Set(d, 0x1.d9d57ep-11f), z, hn::Set(d, -0x1.55c5e0p-6f));
  q = hn::MulAdd(q, z, hn::Set(d, 0x1.03c1dep-2f));
  q = hn::MulAdd(q, z, hn::Set(d, -0x1.3bd3ccp+0f));
  const V c = hn::MulAdd(q, z, hn::Set(d, 1.0f));
  const auto swap = hn::RebindMask(d, hn::Ne(hn::And(quarter, hn::Set(du, 1u)), hn::Zero(du)));
  const auto top = hn::Set(du, 0x80000000u);
  const auto s_sign = hn::And(hn::ShiftLeft<30>(quarter), top);
  const auto c_sign = hn::And(hn::ShiftLeft<30>(hn::Add(quarter, hn::Set(du, 1u))), top);
  *sine = hn::Xor(hn::IfThenElse(swap, c, s), hn::BitCast(d, s_sign));
  *cosine = hn::Xor(hn::IfThenElse(swap, s, c), hn::BitCast(d, c_sign));
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
