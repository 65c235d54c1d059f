#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/math_test.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
// clang-format on

#ifndef GRAFT_KERNELS_MATH_TEST_ONCE
#define GRAFT_KERNELS_MATH_TEST_ONCE
#include "graft/kernels/math.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "graft/kernels/math_table.h"
#include "graft/kernels/ref.h"

namespace graft {
namespace {
struct MathSimdTable {
  void (*exp)(const float* x, float* y, int n);  // n a multiple of 16
  void (*log)(const float* x, float* y, int n);
  void (*sin_turns)(const float* x, float* y, int n);  // of the bits of x
  void (*cos_turns)(const float* x, float* y, int n);
  float (*mul_then_add)(float a, float b, float c);
};
}  // namespace
}  // namespace graft
#endif

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void exp_all(const float* x, float* y, int n) {
  const hn::ScalableTag<float> d;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(d))) hn::StoreU(exp_f32(d, hn::LoadU(d, x + i)), d, y + i);
}
void log_all(const float* x, float* y, int n) {
  const hn::ScalableTag<float> d;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(d))) hn::StoreU(log_f32(d, hn::LoadU(d, x + i)), d, y + i);
}
template <bool kCosine>
void turns_all(const float* x, float* y, int n) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(d))) {
    hn::Vec<decltype(d)> sine, cosine;
    sincos_turns(d, hn::BitCast(du, hn::LoadU(d, x + i)), &sine, &cosine);
    hn::StoreU(kCosine ? cosine : sine, d, y + i);
  }
}
float mul_then_add(float a, float b, float c) {
  const hn::ScalableTag<float> d;
  return hn::GetLane(hn::Add(hn::Mul(hn::Set(d, a), hn::Set(d, b)), hn::Set(d, c)));
}

constexpr MathSimdTable kMathSimdTable = {exp_all, log_all, turns_all<false>, turns_all<true>, mul_then_add};
}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
namespace {

const MathSimdTable* math_simd() { return GRAFT_SIMD_TABLE(kMathSimdTable); }

// Hash of f over the bit patterns start, start + stride, …: the same number on every CPU. NaN counts as one pattern.
struct Hash {
  std::array<uint64_t, 16> lanes{};
  void add(const float* y) {
    for (size_t i = 0; i < 16; ++i) {
      const uint32_t bits = y[i] != y[i] ? 0x7FC00000u : std::bit_cast<uint32_t>(y[i]);
      lanes[i] = (lanes[i] ^ bits) * 0x9E3779B97F4A7C15u;
      lanes[i] ^= lanes[i] >> 29;
    }
  }
  uint64_t value() const {
    uint64_t h = 0;
    for (const uint64_t lane : lanes) h = (h ^ lane) * 0x100000001B3u;
    return h;
  }
};

template <typename F>
uint64_t hash_over_inputs(uint64_t stride, F&& f) {
  Hash hash;
  constexpr int kBatch = 1024;
  std::array<float, kBatch> x, y;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32);) {
    for (float& v : x) {
      v = std::bit_cast<float>(static_cast<uint32_t>(bits));
      bits = std::min(bits + stride, uint64_t{1} << 32);
    }
    f(x.data(), y.data(), kBatch);
    for (int i = 0; i < kBatch; i += 16) hash.add(y.data() + i);
  }
  return hash.value();
}

struct Golden {
  uint64_t exp, log, sin, cos;
};
// Recorded on x86-64; the functions of this file give them on every CPU. The strides are odd, so exponents and signs are
// all met.
constexpr Golden kGoldenAll = {4507462337932988505u, 16252612437103368840u, 16431859994540803823u,
                               10351742562829213654u},
                 kGoldenStride = {15903100976046840484u, 17500952785632663354u, 17119783359335100043u,
                                  14409854100770576041u};
constexpr uint64_t kStride = 997;

void check_hashes(uint64_t stride, const Golden& golden) {
  const MathTable& scalar = pick_reference(kMathRef, kMathFma);
  EXPECT_EQ(hash_over_inputs(stride,
                             [&](const float* x, float* y, int n) {
                               for (int i = 0; i < n; ++i) y[i] = scalar.exp_f32(x[i]);
                             }),
            golden.exp);
  EXPECT_EQ(hash_over_inputs(stride,
                             [&](const float* x, float* y, int n) {
                               for (int i = 0; i < n; ++i) y[i] = scalar.log_f32(x[i]);
                             }),
            golden.log);
  const auto turns = [&](bool cosine) {
    return hash_over_inputs(stride, [&](const float* x, float* y, int n) {
      for (int i = 0; i < n; ++i) {
        float s, c;
        scalar.sincos_turns(std::bit_cast<uint32_t>(x[i]), &s, &c);
        y[i] = cosine ? c : s;
      }
    });
  };
  EXPECT_EQ(turns(false), golden.sin);
  EXPECT_EQ(turns(true), golden.cos);
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    if (const MathSimdTable* table = math_simd()) {
      EXPECT_EQ(hash_over_inputs(stride, table->exp), golden.exp) << cpu_level_name(level);
      EXPECT_EQ(hash_over_inputs(stride, table->log), golden.log) << cpu_level_name(level);
      EXPECT_EQ(hash_over_inputs(stride, table->sin_turns), golden.sin) << cpu_level_name(level);
      EXPECT_EQ(hash_over_inputs(stride, table->cos_turns), golden.cos) << cpu_level_name(level);
    }
  }
  set_cpu_level(top);
}

TEST(Math, FunctionsHaveTheSameBitsEverywhere) { check_hashes(kStride, kGoldenStride); }
TEST(SlowMath, FunctionsHaveTheSameBitsEverywhereOverAllInputs) { check_hashes(1, kGoldenAll); }

TEST(Math, BothBuildsOfTheReferenceAgree) {
  for (uint64_t b = 0; b < (uint64_t{1} << 32); b += 65521) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(b));
    const float e = kMathRef.exp_f32(x), l = kMathRef.log_f32(x);
    const float want_e = exp_f32(x), want_l = log_f32(x);
    ASSERT_TRUE(e == want_e || e != e) << x;
    ASSERT_TRUE(l == want_l || l != l) << x;
    const double y = std::bit_cast<double>(b * 4294967311u);
    const double pairs[][2] = {{kMathRef.exp_f64(y), exp_f64(y)}, {kMathRef.log_f64(y), log_f64(y)}};
    for (const auto& [got, want] : pairs) ASSERT_TRUE(got == want || (got != got && want != want)) << y;
  }
}

// |got - want| in units of the last place of want, the spacing of floats there.
double ulps(float got, long double want) {
  if (std::isinf(got)) return want >= 0x1.ffffffp127L ? 0 : INFINITY;
  int exponent;
  std::frexp(static_cast<double>(want), &exponent);
  return static_cast<double>(std::fabs(got - want)) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

// Real: long double, or double where all inputs are met (its error is 1e-9 of a float's last place).
template <typename Real>
void check_error(uint64_t stride) {
  double worst_exp = 0, worst_log = 0;
  for (uint64_t b = 0; b < (uint64_t{1} << 32); b += stride) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(b));
    if (x != x) continue;
    if (std::fabs(x) < 200) worst_exp = std::max(worst_exp, ulps(exp_f32(x), std::exp(static_cast<Real>(x))));
    if (x > 0 && x < INFINITY) worst_log = std::max(worst_log, ulps(log_f32(x), std::log(static_cast<Real>(x))));
  }
  std::printf("worst error: exp %.3f ulp, log %.3f ulp\n", worst_exp, worst_log);
  EXPECT_LE(worst_exp, 1);
  EXPECT_LE(worst_log, 1);
}
TEST(Math, ExpAndLogAreWithinOneUlp) { check_error<long double>(1009); }
TEST(SlowMath, ExpAndLogAreWithinOneUlpOverAllInputs) { check_error<double>(1); }

TEST(Math, SineAndCosineOfTurns) {
  double worst = 0;
  for (uint64_t t = 0; t < (uint64_t{1} << 32); t += 4099) {
    float s, c;
    sincos_turns(static_cast<uint32_t>(t), &s, &c);
    const long double angle = static_cast<long double>(t) * 0x1p-31L * 3.14159265358979323846264338327950288L;
    worst = std::max({worst, ulps(s, std::sin(angle)), ulps(c, std::cos(angle))});
  }
  std::printf("worst error: %.3f ulp\n", worst);
  EXPECT_LE(worst, 1.5);  // r itself rounds where t has more than 24 bits
  const std::array<std::array<float, 2>, 4> axes = {{{0, 1}, {1, 0}, {0, -1}, {-1, 0}}};
  for (uint32_t quarter = 0; quarter < 4; ++quarter) {
    float s, c;
    sincos_turns(quarter << 30, &s, &c);
    EXPECT_EQ(s, axes[quarter][0]);
    EXPECT_EQ(c, axes[quarter][1]);
  }
}

TEST(Math, EdgesOfExpAndLog) {
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(INFINITY), INFINITY);
  EXPECT_EQ(std::bit_cast<uint32_t>(exp_f32(-INFINITY)), 0u);
  EXPECT_TRUE(std::isnan(exp_f32(NAN)));
  EXPECT_EQ(exp_f32(0x1.62e42ep6f), 0x1.ffff08p127f);  // the largest that does not overflow
  EXPECT_EQ(exp_f32(0x1.62e43p6f), INFINITY);
  EXPECT_EQ(exp_f32(-103.0f), 0x1p-149f);
  EXPECT_EQ(log_f32(1.0f), 0.0f);
  EXPECT_EQ(log_f32(0.0f), -INFINITY);
  EXPECT_EQ(log_f32(-0.0f), -INFINITY);
  EXPECT_TRUE(std::isnan(log_f32(-1.0f)) && std::isnan(log_f32(NAN)) && std::isnan(log_f32(-INFINITY)));
  EXPECT_EQ(log_f32(INFINITY), INFINITY);
  EXPECT_NEAR(log_f32(0x1p-149f), -149 * std::log(2.0), 1e-5);
  EXPECT_EQ(exp_f64(0), 1);
  EXPECT_EQ(exp_f64(1000), INFINITY);
  EXPECT_EQ(exp_f64(-INFINITY), 0);
  EXPECT_TRUE(std::isnan(exp_f64(NAN)) && std::isnan(log_f64(NAN)) && std::isnan(log_f64(-1)));
  EXPECT_EQ(log_f64(0), -INFINITY);
  EXPECT_EQ(log_f64(INFINITY), INFINITY);
  EXPECT_EQ(log_f64(1), 0);
}

TEST(Math, DoubleFormsAreWithinTheirBound) {
  double worst_exp = 0, worst_log = 0, worst_pow = 0, worst_sincos = 0;
  const auto relative = [](double got, long double want) {
    return static_cast<double>(std::fabs((got - want) / want));
  };
  for (int i = 0; i < 200000; ++i) {
    const double u = std::fmod(i * 0.6180339887498949, 1.0), v = std::fmod(i * 0.7548776662466927, 1.0);
    const double x = (u - 0.5) * 1400;
    worst_exp = std::max(worst_exp, relative(exp_f64(x), std::exp(static_cast<long double>(x))));
    for (const double p : {1 + (u - 0.5) * 0.01, u * 10, std::exp(x)}) {
      if (p > 0 && p != 1) worst_log = std::max(worst_log, relative(log_f64(p), std::log(static_cast<long double>(p))));
    }
    for (const double base : {u * 3 + 1e-9, 10000.0, 1e6 * u + 1, 0.999}) {
      const double y = (v - 0.5) * 60;
      worst_pow = std::max(
          worst_pow, relative(pow_f64(base, y), std::pow(static_cast<long double>(base), static_cast<long double>(y))));
    }
    for (const double a :
         {(u - 0.5) * 2e6, std::floor(u * 1e6), (v - 0.5) * 7, std::floor(u * 600000) * 1.5707963267948966}) {
      double s, c;
      sincos_f64(a, &s, &c);
      worst_sincos = std::max(worst_sincos, static_cast<double>(std::fabs(s - std::sin(static_cast<long double>(a)))));
      worst_sincos = std::max(worst_sincos, static_cast<double>(std::fabs(c - std::cos(static_cast<long double>(a)))));
    }
  }
  std::printf("worst: exp %.2g, log %.2g, pow %.2g, sincos %.2g\n", worst_exp, worst_log, worst_pow, worst_sincos);
  EXPECT_LT(worst_exp, 1e-15);
  EXPECT_LT(worst_log, 1e-15);
  EXPECT_LT(worst_pow, 1e-15);
  EXPECT_LT(worst_sincos, 1e-15);
}

// -ffp-contract=off: a product and a sum that differ when a compiler fuses them.
TEST(Math, ProductsAndSumsAreNotContracted) {
  volatile float a = 1.0f + 0x1p-12f, c = -(1.0f + 0x1p-11f);
  EXPECT_EQ(a * a + c, 0.0f);
  EXPECT_EQ(kMathRef.mul_then_add(a, a, c), 0.0f);
  if (cpu_has_fma()) {
    EXPECT_EQ(kMathFma.mul_then_add(a, a, c), 0.0f);
  }
  EXPECT_EQ(std::fma(a, a, c), 0x1p-24f);
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    if (const MathSimdTable* table = math_simd()) {
      EXPECT_EQ(table->mul_then_add(a, a, c), 0.0f) << cpu_level_name(level);
    }
  }
  set_cpu_level(top);
}

}  // namespace
}  // namespace graft
#endif
