#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/random_fill_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/philox_inl.h"
// clang-format on

#include "graft/kernels/random_fill_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

using RealTag = hn::RebindToFloat<PairTag>;  // f64, a block per lane
using WholeTag = hn::RebindToSigned<PairTag>;
using Real = hn::Vec<RealTag>;

// The upper 24 of a word's 32 bits; the lane's high half is not defined. Exact.
template <class V>
HWY_INLINE Real top_bits(V word) {
  const PairTag d;
  const auto bits = hn::And(hn::ShiftRight<8>(word), hn::Set(d, uint64_t{0xFFFFFF}));
  return hn::Sub(hn::BitCast(RealTag(), hn::Or(bits, hn::BitCast(d, hn::Set(RealTag(), 0x1p52)))),
                 hn::Set(RealTag(), 0x1p52));
}

// log_chain and sincos_chain of math_ref_inl.h, operation for operation, for x in [2^-24, 1] and for an angle in [0, 2 pi).
HWY_INLINE Real log_f64(Real x) {
  const RealTag d;
  const WholeTag di;
  const auto bits = hn::BitCast(di, x);
  const auto k = hn::ShiftRight<52>(hn::Sub(bits, hn::Set(di, int64_t{0x3FE6A09E667F3BCD})));
  const Real f = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<52>(k))), hn::Set(d, 1.0));
  const Real e = hn::ConvertTo(d, k);
  const Real s = hn::Div(f, hn::Add(hn::Set(d, 2.0), f)), z = hn::Mul(s, s);
  Real p = hn::Set(d, 2.0 / 25);
  for (int j = 23; j >= 5; j -= 2) p = hn::MulAdd(p, z, hn::Set(d, 2.0 / j));
  const Real small =
      hn::MulAdd(hn::Mul(s, z), hn::MulAdd(p, z, hn::Set(d, 2.0 / 3)), hn::Mul(e, hn::Set(d, 0x1.a39ef35793c76p-33)));
  return hn::MulAdd(e, hn::Set(d, 0x1.62e42feep-1), hn::Add(hn::Mul(hn::Set(d, 2.0), s), small));
}

HWY_INLINE void sincos_f64(Real x, Real* sine, Real* cosine) {
  const RealTag d;
  const WholeTag di;
  const Real magic = hn::Set(d, 0x1.8p52);
  const Real shifted = hn::MulAdd(x, hn::Set(d, 0x1.45f306dc9c883p-1), magic), n = hn::Sub(shifted, magic);
  const Real high = hn::Set(d, 0x1.921fb54442d18p+0);
  const Real a = hn::Mul(n, high), a_low = hn::MulSub(n, high, a);
  const Real b = hn::Mul(n, hn::Set(d, 0x1.1a62633145c07p-54));
  const Real head = hn::Sub(x, a), tail = hn::Add(a_low, b);
  const Real r = hn::Sub(head, tail), r_low = hn::Sub(hn::Sub(head, r), tail), z = hn::Mul(r, r);
  constexpr double kSine[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                              1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
  constexpr double kCosine[] = {-1.0 / 6402373705728000, 1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                                -1.0 / 3628800,          1.0 / 40320,          -1.0 / 720,         1.0 / 24};
  Real p = hn::Set(d, kSine[0]), q = hn::Set(d, kCosine[0]);
  for (int i = 1; i < 8; ++i) {
    p = hn::MulAdd(p, z, hn::Set(d, kSine[i]));
    q = hn::MulAdd(q, z, hn::Set(d, kCosine[i]));
  }
  const Real one = hn::Set(d, 1.0);
  const Real s = hn::Add(r, hn::MulAdd(hn::Mul(r, z), p, r_low));
  const Real half = hn::Mul(hn::Set(d, 0.5), z), rest = hn::Sub(one, half);
  const Real c = hn::Add(
      rest, hn::Add(hn::Sub(hn::Sub(one, rest), half), hn::MulAdd(hn::Mul(z, z), q, hn::Mul(hn::Neg(r), r_low))));
  const auto quadrant = hn::BitCast(di, shifted), bit = hn::Set(di, 1), two = hn::Set(di, 2);  // in the low bits
  const auto swap = hn::MaskFromVec(hn::BitCast(d, hn::VecFromMask(di, hn::Eq(hn::And(quadrant, bit), bit))));
  const auto sign_of = [&](auto number) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<62>(hn::And(number, two))); };
  *sine = hn::Xor(hn::IfThenElse(swap, c, s), sign_of(quadrant));
  *cosine = hn::Xor(hn::IfThenElse(swap, s, c), sign_of(hn::Add(quadrant, bit)));
}

int64_t normal(PhiloxStream stream, uint64_t block, int64_t blocks, double std, float* x) noexcept {
  const RealTag d;
  const hn::Rebind<float, RealTag> df;
  const PhiloxLanes lanes(stream);
  const Real scale = hn::Set(d, std), unit = hn::Set(d, 0x1p-24);
  return lanes.groups(block, blocks, [&](int64_t at, auto w0, auto w1, auto w2, auto w3) HWY_ATTR {
    HWY_ALIGN float values[4][kPhiloxLanes];
    const auto pair = [&](auto first, auto second, float* even, float* odd) HWY_ATTR {
      const Real u1 = hn::Mul(hn::Add(top_bits(first), hn::Set(d, 1.0)), unit), u2 = hn::Mul(top_bits(second), unit);
      const Real radius = hn::Mul(scale, hn::Sqrt(hn::Mul(hn::Set(d, -2.0), log_f64(u1))));
      Real sine, cosine;
      sincos_f64(hn::Mul(hn::Set(d, 6.283185307179586), u2), &sine, &cosine);
      hn::Store(hn::DemoteTo(df, hn::Mul(radius, cosine)), df, even);
      hn::Store(hn::DemoteTo(df, hn::Mul(radius, sine)), df, odd);
    };
    pair(w0, w1, values[0], values[1]);
    pair(w2, w3, values[2], values[3]);
    for (int64_t lane = 0; lane < kPhiloxLanes; ++lane) {
      float* to = x + 4 * (at + lane / 2 + lane % 2 * (kPhiloxLanes / 2));  // PhiloxLanes' order of blocks
      for (int k = 0; k < 4; ++k) to[k] = values[k][lane];
    }
  });
}

}  // namespace

constexpr RandomFillTable kRandomFillTable = {normal};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const RandomFillTable* random_fill_simd() noexcept { return GRAFT_SIMD_TABLE(kRandomFillTable); }
}  // namespace graft
#endif
