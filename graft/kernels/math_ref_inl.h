#pragma once

// Scalar forms of graft's elementary functions (math.h), for the reference kernels: internal to each file that includes
// it, so that files compiled with and without fused multiply-add never share code (ref.h). math_inl.h repeats the f32
// chains in Highway.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace graft {
namespace {

// e^x = 2^n e^r, n = round(x log2 e), |r| <= ln 2 / 2. e^r = 1 + r (1 + r q(r)), q minimax (relative error 2^-28.2).
// ln 2's high part has 21 bits, so x - n ln2_hi is exact. 2^n goes in as two factors: the result rounds once where it
// is subnormal and overflows to infinity by itself. Clamping by comparison keeps NaN.
inline float exp_chain(float x) noexcept {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer in the low bits
  const float c = x > 89.0f ? 89.0f : x < -104.0f ? -104.0f : x;
  const float shifted = std::fma(c, 0x1.715476p+0f, kMagic);
  const float n = shifted - kMagic;
  const float r = std::fma(n, 0x1.05c610p-29f, std::fma(n, -0x1.62e430p-1f, c));
  float q = 0x1.6a4d78p-10f;
  q = std::fma(q, r, 0x1.12398ep-7f);
  q = std::fma(q, r, 0x1.5558b0p-5f);
  q = std::fma(q, r, 0x1.555492p-3f);
  q = std::fma(q, r, 0x1.fffffcp-2f);
  q = std::fma(q, r, 1.0f);
  const float p = std::fma(q, r, 1.0f);
  const int32_t k = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kMagic));
  const int32_t half = k >> 1;
  const auto bits = [](int32_t e) { return std::bit_cast<float>(static_cast<uint32_t>(e + 127) << 23); };
  return x != x ? x + x : (p * bits(half)) * bits(k - half);
}

// ln(1 + f) = f + f^2 (-1/2 + f q(f)) for f in [-1/3, 1/3), q minimax (relative error 2^-27.7).
inline float log_series(float f) noexcept {
  float q = -0x1.07d222p-3f;
  q = std::fma(q, f, 0x1.1e73a0p-3f);
  q = std::fma(q, f, -0x1.f329c6p-4f);
  q = std::fma(q, f, 0x1.1ed424p-3f);
  q = std::fma(q, f, -0x1.559cdep-3f);
  q = std::fma(q, f, 0x1.99d05ep-3f);
  q = std::fma(q, f, -0x1.fffef6p-3f);
  q = std::fma(q, f, 0x1.555506p-2f);
  q = std::fma(q, f, -0.5f);
  return std::fma(q, f * f, f);
}

// ln x = e ln 2 + ln m, m in [2/3, 4/3).
inline float log_chain(float x) noexcept {
  const bool tiny = x < 0x1p-126f;
  const uint32_t bits = std::bit_cast<uint32_t>(tiny ? x * 0x1p23f : x);
  const int32_t k = static_cast<int32_t>(bits - 0x3F2AAAABu) >> 23;
  const float f = std::bit_cast<float>(bits - (static_cast<uint32_t>(k) << 23)) - 1.0f;
  const float e = static_cast<float>(k) - (tiny ? 23.0f : 0.0f);
  const float y = std::fma(e, 0x1.62e430p-1f, log_series(f));
  constexpr float kInf = std::numeric_limits<float>::infinity();
  if (x > 0) return x < kInf ? y : x;
  return x == 0 ? -kInf : std::numeric_limits<float>::quiet_NaN();
}

// sin and cos of 2 pi t / 2^32: an angle in turns as a fraction of 32 bits, so that the reduction to the nearest quarter is exact. With
// r in [-1/2, 1/2) quarters: sin = r (pi/2 + z p(z)), cos = 1 + z q(z), z = r^2, minimax (relative errors 2^-28.2, 2^-33.9).
inline void sincos_turns_chain(uint32_t t, float* sine, float* cosine) noexcept {
  const uint32_t quarter = (t + 0x20000000u) >> 30;
  const float r = static_cast<float>(static_cast<int32_t>(t << 2)) * 0x1p-32f;
  const float z = r * r;
  float p = std::fma(-0x1.2d9302p-8f, z, 0x1.465e92p-4f);
  p = std::fma(p, z, -0x1.4abbbap-1f);
  p = std::fma(p, z, -0x1.a32bd2p-25f);
  const float s = std::fma(r, 0x1.921fb6p+0f, r * p);
  float q = std::fma(0x1.d9d57ep-11f, z, -0x1.55c5e0p-6f);
  q = std::fma(q, z, 0x1.03c1dep-2f);
  q = std::fma(q, z, -0x1.3bd3ccp+0f);
  const float c = std::fma(q, z, 1.0f);
  const bool swap = (quarter & 1) != 0;
  const uint32_t s_sign = quarter << 30 & 0x80000000u, c_sign = (quarter + 1) << 30 & 0x80000000u;
  *sine = std::bit_cast<float>(std::bit_cast<uint32_t>(swap ? c : s) ^ s_sign);
  *cosine = std::bit_cast<float>(std::bit_cast<uint32_t>(swap ? s : c) ^ c_sign);
}

// ---- f64 ----

// e^(x + low), |low| < 2^-40: the same reduction, Taylor's series to r^13 (remainder below 2^-57 for |r| <= 0.35).
inline double exp_chain_sum(double x, double low) noexcept {
  constexpr double kMagic = 0x1.8p52;
  const double c = x > 710.0 ? 710.0 : x < -746.0 ? -746.0 : x;
  if (x != x) return x + x;
  const double shifted = std::fma(c, 0x1.71547652b82fep+0, kMagic);
  const double n = shifted - kMagic;
  const double r = std::fma(n, -0x1.abc9e3b39803fp-56, std::fma(n, -0x1.62e42fefa39efp-1, c)) + low;
  constexpr double kInverseFactorial[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  double p = kInverseFactorial[0];
  for (int i = 1; i < 14; ++i) p = std::fma(p, r, kInverseFactorial[i]);
  const auto k = static_cast<int32_t>(n);
  const int32_t half = k >> 1;
  const auto power = [](int32_t e) { return std::bit_cast<double>(static_cast<uint64_t>(e + 1023) << 52); };
  return (p * power(half)) * power(k - half);
}
inline double exp_chain(double x) noexcept { return exp_chain_sum(x, 0); }

// x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), for finite x > 0.
inline double split_exponent(double x, double* f) noexcept {
  const bool tiny = x < 0x1p-1022;
  const uint64_t bits = std::bit_cast<uint64_t>(tiny ? x * 0x1p54 : x);
  const int64_t k = static_cast<int64_t>(bits - 0x3FE6A09E667F3BCDu) >> 52;
  *f = std::bit_cast<double>(bits - (static_cast<uint64_t>(k) << 52)) - 1.0;
  return static_cast<double>(k) - (tiny ? 54.0 : 0.0);
}

// 2/5 + 2/7 z + … + 2/23 z^9: the tail of 2 atanh(s) = 2 s + s z (2/3 + z tail), z = s^2 <= 0.0295.
inline double atanh_tail(double z) noexcept {
  double p = 2.0 / 25;
  for (int k = 23; k >= 5; k -= 2) p = std::fma(p, z, 2.0 / k);
  return p;
}

// ln(1 + f) = 2 atanh(f / (2 + f)).
inline double log_chain(double x) noexcept {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (!(x > 0)) return x == 0 ? -kInf : std::numeric_limits<double>::quiet_NaN();
  if (!(x < kInf)) return x;
  double f;
  const double e = split_exponent(x, &f);
  const double s = f / (2.0 + f), z = s * s;
  const double small = std::fma(s * z, std::fma(atanh_tail(z), z, 2.0 / 3), e * 0x1.a39ef35793c76p-33);
  return std::fma(e, 0x1.62e42feep-1, 2.0 * s + small);  // the high part of ln 2 has 32 bits: e times it is exact
}

inline float mul_then_add(float a, float b, float c) noexcept { return a * b + c; }
inline float sqrt_chain(float x) noexcept { return std::sqrt(x); }
inline double sqrt_chain(double x) noexcept { return std::sqrt(x); }

// x^y = e^(y ln x) with ln x as a sum of two doubles (relative error below 2^-65), so that |y ln x| up to 709 costs
// nothing.
inline double pow_chain(double x, double y) noexcept {
  if (y == 0 || x == 1) return 1;
  if (!(x > 0 && x < std::numeric_limits<double>::infinity())) return exp_chain(y * log_chain(x));
  double f;
  const double e = split_exponent(x, &f);
  const double d = 2.0 + f, d_low = f - (d - 2.0);
  const double s = f / d, s_low = (std::fma(-s, d, f) - s * d_low) / d;
  const double z = s * s, z_low = std::fma(s, s, -z) + 2.0 * s * s_low;
  constexpr double kTwoThirds = 0x1.5555555555555p-1, kTwoThirdsLow = 0x1.5555555555555p-55;
  const double t = z * atanh_tail(z);
  const double q = kTwoThirds + t, q_low = ((kTwoThirds - q) + t) + kTwoThirdsLow;
  const double zq = z * q, zq_low = std::fma(z, q, -zq) + (z * q_low + z_low * q);
  const double cube = s * zq, cube_low = std::fma(s, zq, -cube) + (s * zq_low + s_low * zq);
  // e ln2_high is exact and 0 or larger than the rest; |2 s| is larger than |cube|.
  const double m = 2.0 * s + cube, m_low = ((2.0 * s - m) + cube) + (2.0 * s_low + cube_low);
  const double big = e * 0x1.62e42feep-1;
  const double sum = big + m;
  const double virtual_m = sum - big;
  const double low = ((big - (sum - virtual_m)) + (m - virtual_m)) + std::fma(e, 0x1.a39ef35793c76p-33, m_low);
  const double product = y * sum;
  if (!(product > -800 && product < 800)) return exp_chain(product);
  return exp_chain_sum(product, std::fma(y, sum, -product) + y * low);
}

// r = x - n pi/2 by pi/2 in three parts with exact products, then Taylor's series on |r| <= pi/4.
inline void sincos_chain(double x, double* sine, double* cosine) noexcept {
  if (!(x > -0x1p40 && x < 0x1p40)) {  // beyond any table; infinities and NaN give NaN
    *sine = *cosine = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  constexpr double kMagic = 0x1.8p52;
  const double n = std::fma(x, 0x1.45f306dc9c883p-1, kMagic) - kMagic;
  constexpr double kHigh = 0x1.921fb54442d18p+0, kMiddle = 0x1.1a62633145c07p-54;
  const double a = n * kHigh, a_low = std::fma(n, kHigh, -a);
  const double b = n * kMiddle;
  const double head = x - a;  // exact: a is within pi/4 of x, or n is 0
  const double tail = a_low + b;
  const double r = head - tail;
  const double r_low = (head - r) - tail;
  const double z = r * r;
  constexpr double kSine[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                              1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
  constexpr double kCosine[] = {-1.0 / 6402373705728000, 1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                                -1.0 / 3628800,          1.0 / 40320,          -1.0 / 720,         1.0 / 24};
  double p = kSine[0], q = kCosine[0];
  for (int i = 1; i < 8; ++i) {
    p = std::fma(p, z, kSine[i]);
    q = std::fma(q, z, kCosine[i]);
  }
  const double s = r + std::fma(r * z, p, r_low);
  const double half = 0.5 * z, rest = 1.0 - half;
  const double c = rest + (((1.0 - rest) - half) + std::fma(z * z, q, -r * r_low));
  const auto quadrant = static_cast<int64_t>(n) & 3;
  const double first = (quadrant & 1) != 0 ? c : s, second = (quadrant & 1) != 0 ? s : c;
  *sine = (quadrant & 2) != 0 ? -first : first;
  *cosine = quadrant == 1 || quadrant == 2 ? -second : second;
}

}  // namespace
}  // namespace graft
