#include "graft/kernels/optimizer.h"

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

TEST(AdamW, GoldenValuesInDouble) {
  test::TestContext t;
  // theta_0 = 1, lr 1e-3; computed in float64 by the update rule of arXiv:1711.05101.
  const double gradients[] = {0.1, -0.2, 0.3, 0, 0.05};
  struct Case {
    double beta2, weight_decay, want[5];
  };
  const Case cases[] = {
      {0.999, 0.01, {0.9989900001, 0.9993461137038838, 0.9989928791783393, 0.99870172705717, 0.9983838546487193}},
      {0.95, 0.1, {0.9989000001, 0.9991634840276603, 0.9987251604221202, 0.9983444703223094, 0.9979334373447232}}};
  for (const Case& c : cases) {
    std::vector<double> p = {1}, m = {0}, v = {0};
    std::vector<float> pf = {1}, mf = {0}, vf = {0};
    AdamWStep step;
    step.lr = 1e-3;
    step.beta2 = c.beta2;
    step.weight_decay = c.weight_decay;
    for (int i = 0; i < 5; ++i) {
      step.t = i + 1;
      const std::vector<double> g = {gradients[i] * 4};
      const std::vector<float> gf = {static_cast<float>(gradients[i] * 4)};
      step.grad_scale = 0.25;  // a power of two: the clip factor changes nothing else
      adamw<double>(t.context, step, g, p, m, v);
      adamw<float>(t.context, step, gf, pf, mf, vf);
      EXPECT_NEAR(p[0], c.want[i], 1e-15);
      EXPECT_NEAR(pf[0], c.want[i], 3e-7);  // a rounding to f32 near 1 is 6e-8; five steps
    }
  }
}

std::vector<float> all_optimizers(Context& context, const std::vector<float>& g, const std::vector<float>& start) {
  std::vector<float> p = start, m(g.size()), v(g.size()), all;
  AdamWStep step;
  step.grad_scale = 0.7;
  for (int64_t t = 1; t <= 3; ++t) {
    step.t = t;
    adamw<float>(context, step, g, p, m, v);
  }
  sgd<float>(context, 0.1, 0.01, 0.5, g, p);
  test::append(all, p);
  test::append(all, m);
  test::append(all, v);
  test::append_double(all, sum_squares<float>(context, g));
  all.push_back(static_cast<float>(first_non_finite<float>(g)));
  return all;
}

TEST(Optimizer, SameBitsOnEveryCpuLevelAndThreadCount) {
  std::vector<int64_t> sizes = test::edge_sizes();
  sizes.push_back(300000);
  for (const int64_t n : sizes) {
    const auto g = test::random_values<float>(n, 1, 0.1), p = test::random_values<float>(n, 2);
    test::expect_same_bits([&](Context& c) { return all_optimizers(c, g, p); }, "optimizer " + std::to_string(n),
                           sum_squares_scratch(n));
    const auto hostile = test::hostile_values(n, 3);
    test::expect_same_bits([&](Context& c) { return all_optimizers(c, hostile, p); }, "hostile " + std::to_string(n),
                           sum_squares_scratch(n));
  }
}

TEST(AdamW, ClearsWhatItTook) {
  test::TestContext t(2);
  constexpr int64_t kSize = 70001;  // pieces in ranges of threads, and what is left of them
  std::vector<float> g = test::random_values<float>(kSize, 1, 0.1), p = test::random_values<float>(kSize, 2);
  std::vector<float> m(p.size(), 0.01f), v(p.size(), 0.02f), p2 = p, m2 = m, v2 = v;
  adamw<float>(t.context, {}, g, p, m, v);
  adamw_and_clear<float>(t.context, {}, g, p2, m2, v2);
  EXPECT_EQ(p, p2);
  EXPECT_EQ(m, m2);
  EXPECT_EQ(v, v2);
  EXPECT_EQ(g, std::vector<float>(p.size()));
}

TEST(AdamW, SmallMomentsBecomeZero) {
  test::TestContext t(1);
  std::vector<float> p = {1, 1, 1}, m = {0x1p-99f, -0x1p-101f, 0}, v = {0x1p-99f, 0x1p-100f, 0x1p-149f};
  const std::vector<float> g = {0, 0, NAN};
  adamw<float>(t.context, {}, g, p, m, v);
  EXPECT_NE(m[0], 0);
  EXPECT_EQ(m[1], 0);
  EXPECT_NE(v[0], 0);
  EXPECT_EQ(v[1], 0);
  EXPECT_TRUE(std::isnan(m[2]) && std::isnan(v[2]) && std::isnan(p[2]));
}

TEST(SumSquares, IsExactWhereItCanBeAndPassesNanOn) {
  test::TestContext t;
  for (const int64_t n : test::edge_sizes()) {
    t.context.reserve(sum_squares_scratch(n));
    const std::vector<float> threes(static_cast<size_t>(n), 3.0f);
    EXPECT_EQ(sum_squares<float>(t.context, threes), 9.0 * static_cast<double>(n));
  }
  std::vector<float> x(9000, 1e30f);
  t.context.reserve(sum_squares_scratch(9000));
  EXPECT_NEAR(sum_squares<float>(t.context, x) / 9e63, 1, 1e-7);  // beyond f32's range; 1e30f is 1e30 to 5e-9
  EXPECT_EQ(first_non_finite<float>(x), -1);
  x[8000] = INFINITY;
  EXPECT_EQ(sum_squares<float>(t.context, x), INFINITY);
  EXPECT_EQ(first_non_finite<float>(x), 8000);
  x[70] = NAN;
  EXPECT_TRUE(std::isnan(sum_squares<float>(t.context, x)));
  EXPECT_EQ(first_non_finite<float>(x), 70);
  const std::vector<double> d = {1, 1e308, -INFINITY};
  EXPECT_EQ(first_non_finite<double>(d), 2);
}

// More than 4,096 blocks: the sums of blocks form a new vector twice.
TEST(SumSquares, LongVectorsFoldTheSameWayInPlaceAndThroughScratch) {
  const int64_t n = 4096 * 4096 + 4096 * 3 + 5;
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1009) * 1e-3f;
  test::TestContext one(1), three(3);
  three.context.reserve(sum_squares_scratch(n));
  const double want = sum_squares<float>(one.context, x);
  EXPECT_EQ(sum_squares<float>(three.context, x), want);
  long double plain = 0;
  for (const float v : x) plain += static_cast<long double>(v) * v;
  EXPECT_NEAR(want / static_cast<double>(plain), 1, 3e-14);  // at most 70 additions a level, three levels, 2^-53 each
}

std::vector<float> run_suite(Context& context, const std::vector<float>& g, const std::vector<float>& start) {
  std::vector<float> p = start, m(g.size(), 0.25f), v(g.size(), 0.5f), clipped(g.size()), all;
  opt_sgd(context, 0.1, g, p);
  opt_sgd_momentum(context, 0.1, 0.9, g, p, m);
  opt_adam(context, {}, g, p, m, v);
  opt_adamw(context, {}, g, p, m, v);
  for (const ClipMode mode : {ClipMode::kValue, ClipMode::kNorm}) {
    all.push_back(fused_adam_clip_update(context, {}, mode, 0.05, g, p, m, v));
  }
  for (const auto* each : {&p, &m, &v}) test::append(all, *each);
  all.push_back(grad_clip_norm(context, g, 0.5, clipped));
  test::append(all, clipped);
  grad_clip_value(context, g, 0.05, clipped);
  test::append(all, clipped);
  return all;
}

TEST(SuiteOptimizers, SameBitsOnEveryCpuLevelAndThreadCount) {
  std::vector<int64_t> sizes = test::edge_sizes();
  sizes.push_back(100003);
  for (const int64_t n : sizes) {
    const auto g = test::random_values<float>(n, 1, 0.1), p = test::random_values<float>(n, 2);
    test::expect_same_bits([&](Context& c) { return run_suite(c, g, p); }, "suite " + std::to_string(n),
                           sum_squares_scratch(n));
    const auto hostile = test::hostile_values(n, 3);
    test::expect_same_bits([&](Context& c) { return run_suite(c, hostile, p); }, "hostile " + std::to_string(n),
                           sum_squares_scratch(n));
  }
}

TEST(GradClip, NormOverAllTensors) {
  test::TestContext t(3);
  t.context.reserve(sum_squares_scratch(100000));
  std::vector<float> a = {3, 0}, b(50000, 0.0f);
  b[49999] = 4;
  const std::vector<std::span<float>> both = {a, b};
  EXPECT_EQ(grad_clip_norm(t.context, both, 5), 5);  // at the bound: untouched
  EXPECT_EQ(a[0], 3);
  EXPECT_EQ(grad_clip_norm(t.context, both, 2.5), 5);
  EXPECT_EQ(a[0], 1.5f);
  EXPECT_EQ(b[49999], 2);
  std::vector<float> zero(7, 0.0f), out(7, 9.0f);
  EXPECT_EQ(grad_clip_norm(t.context, zero, 0, out), 0);
  EXPECT_EQ(out, zero);
  zero[3] = NAN;
  EXPECT_TRUE(std::isnan(grad_clip_norm(t.context, zero, 1, out)));
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(grad_clip_norm(t.context, std::span<const std::span<float>>(), 1), 0);
}

TEST(GradClip, NormOfWhatF32CannotSquare) {
  test::TestContext t(2);
  t.context.reserve(sum_squares_scratch(20000));
  for (const float size : {1e25f, 1e-25f}) {
    std::vector<float> g(20000, size), out(g.size());
    const double want = static_cast<double>(size) * std::sqrt(20000.0);
    EXPECT_NEAR(static_cast<double>(grad_clip_norm(t.context, g, want / 2, out)) / want, 1, 1e-6);
    EXPECT_NEAR(out[19999] / size, 0.5f, 1e-6f);
  }
}

TEST(GradClip, ValueKeepsNan) {
  test::TestContext t;
  std::vector<float> g = {-3, -0.5f, NAN, 0.5f, INFINITY, -INFINITY, -0.0f};
  grad_clip_value(t.context, g, 0.5, g);
  EXPECT_TRUE(std::isnan(g[2]));
  g[2] = 1;
  EXPECT_EQ(g, (std::vector<float>{-0.5f, -0.5f, 1, 0.5f, 0.5f, -0.5f, 0}));
}

// One pass gives the bits of clipping first and updating then.
TEST(FusedAdamClip, IsTheCompositionOfItsParts) {
  test::TestContext t;
  const int64_t n = 20011;
  t.context.reserve(sum_squares_scratch(n));
  const auto g = test::random_values<float>(n, 1, 3), start = test::random_values<float>(n, 2);
  for (const ClipMode mode : {ClipMode::kValue, ClipMode::kNorm}) {
    std::vector<float> clipped = g, p = start, m(g.size()), v(g.size()), pf = start, mf = m, vf = v;
    float norm = 0;
    if (mode == ClipMode::kValue) {
      grad_clip_value(t.context, g, 0.5, clipped);
    } else {
      norm = grad_clip_norm(t.context, g, 0.5, clipped);
    }
    opt_adamw(t.context, {}, clipped, p, m, v);
    EXPECT_EQ(fused_adam_clip_update(t.context, {}, mode, 0.5, g, pf, mf, vf), norm);
    EXPECT_EQ(p, pf);
    EXPECT_EQ(m, mf);
    EXPECT_EQ(v, vf);
  }
}

}  // namespace
}  // namespace graft
