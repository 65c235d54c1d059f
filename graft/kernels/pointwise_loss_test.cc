#include "graft/kernels/pointwise_loss.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

constexpr double kEps = 1e-7;

std::vector<float> all_losses(Context& context, const std::vector<float>& p, const std::vector<float>& t) {
  std::vector<float> all;
  for (const LossValue& v : {loss_mse(context, p, t), loss_mae(context, p, t), loss_huber(context, p, t, 0.75),
                             loss_kl_div(context, p, t, 3, 1e-10), loss_bce(context, p, t, kEps)}) {
    all.push_back(v.sum);
    all.push_back(v.mean);
  }
  return all;
}

std::vector<float> probabilities(int64_t n, uint64_t seed) {
  std::vector<float> x = test::random_values<float>(n, seed, 0.5);
  for (float& v : x) v += 0.5f;
  return x;
}

TEST(PointwiseLoss, SameBitsOnEveryCpuLevelAndThreadCount) {
  std::vector<int64_t> sizes = test::edge_sizes();
  sizes.push_back(40009);
  for (const int64_t n : sizes) {
    const auto p = probabilities(n, 1);
    auto t = probabilities(n, 2);
    const auto check = [&](const std::vector<float>& a, const std::vector<float>& b, const char* what) {
      test::expect_same_bits([&](Context& c) { return all_losses(c, a, b); }, what + std::to_string(n),
                             pointwise_loss_scratch(n));
    };
    check(p, t, "any targets ");
    check(test::hostile_values(n, 3), test::hostile_values(n, 4), "hostile ");
    for (size_t i = 0; i < t.size(); ++i) t[i] = i % 3 == 0 ? 1 : 0;
    check(p, t, "labels ");
    // One target between two labels takes its vector off the short way.
    if (!t.empty()) t[t.size() / 2] = 0.3f;
    check(p, t, "mixed ");
  }
}

TEST(PointwiseLoss, MatchesTheFormulas) {
  test::TestContext context;
  const int64_t n = 20000;
  context.context.reserve(pointwise_loss_scratch(n));
  const auto p = probabilities(n, 1), t = probabilities(n, 2);
  double mse = 0, mae = 0, huber = 0, kl = 0, kl_terms = 0, bce = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double q = p[i], y = t[i], d = std::fabs(q - y);
    mse += d * d;
    mae += d;
    huber += d < 0.75 ? d * d / 2 : 0.75 * (d - 0.375);
    const double term = y > 0 ? y * (std::log(y) - std::log(std::max(q, 1e-10))) : 0;
    kl += term;
    kl_terms += std::fabs(term);
    const double c = std::clamp(q, static_cast<double>(1e-7f), 1 - 0x1p-23);
    bce -= y * std::log(c) + (1 - y) * std::log1p(-c);
  }
  const auto got = all_losses(context.context, p, t);
  const double want[] = {mse, mse / n, mae, mae / n, huber, huber / n, kl, kl / 3, bce, bce / n};
  for (size_t i = 0; i < std::size(want); ++i) {
    const double slack = i == 6 ? 4e-6 * kl_terms : i == 7 ? 4e-6 * kl_terms / 3 : 0;
    EXPECT_NEAR(got[i], want[i], 4e-6 * std::fabs(want[i]) + slack) << i;
  }
}

TEST(PointwiseLoss, Edges) {
  test::TestContext t;
  t.context.reserve(pointwise_loss_scratch(16));
  const std::vector<float> none;
  EXPECT_EQ(loss_mse(t.context, none, none).sum, 0);
  EXPECT_TRUE(std::isnan(loss_mse(t.context, none, none).mean));
  const auto kl = [&](float p, float target) {
    return loss_kl_div(t.context, std::span<const float>(&p, 1), std::span<const float>(&target, 1), 1, 1e-10).sum;
  };
  EXPECT_EQ(kl(0.5f, 0), 0);
  EXPECT_EQ(kl(0, 0), 0);
  EXPECT_NEAR(kl(0, 1), -std::log(1e-10), 1e-5);
  EXPECT_TRUE(std::isnan(kl(NAN, 1)) && std::isnan(kl(1, NAN)));
  const auto bce = [&](float p, float target) {
    return loss_bce(t.context, std::span<const float>(&p, 1), std::span<const float>(&target, 1), kEps).sum;
  };
  // The clamped ends, and ln(1 - p) of a small p to all its digits.
  EXPECT_NEAR(bce(0, 0) / 1e-7, 1, 1e-6);
  EXPECT_NEAR(bce(0, 1), -std::log(1e-7), 1e-5);
  EXPECT_NEAR(bce(1, 1) / 0x1p-23, 1, 1e-6);
  EXPECT_NEAR(bce(1e-5f, 0) / -std::log1p(-static_cast<double>(1e-5f)), 1, 2e-7);
  EXPECT_TRUE(std::isnan(bce(NAN, 1)) && std::isnan(bce(0.5f, NAN)) && std::isnan(bce(NAN, 0)));
  const auto huber = [&](float p) {
    const float zero = 0;
    return loss_huber(t.context, std::span<const float>(&p, 1), std::span<const float>(&zero, 1), 2).sum;
  };
  EXPECT_EQ(huber(1), 0.5f);
  EXPECT_EQ(huber(-2), 2);
  EXPECT_EQ(huber(-5), 8);
  EXPECT_EQ(huber(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(huber(NAN)));
}

TEST(PointwiseLoss, WrongCallsAreErrors) {
  const auto fails = [](const char* name, int64_t targets, const char* parameter, const char* value) {
    KernelCall call;
    call.add_input("pred", DType::kF32, {3, 4});
    call.add_input("target", DType::kF32, {3, targets});
    call.set_parameter(parameter, value);
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name;
  };
  for (const char* name : {"loss_mse", "loss_mae", "loss_huber", "loss_kl_div", "loss_bce"})
    fails(name, 5, "none", "0");
  fails("loss_huber", 4, "delta", "0");
  fails("loss_kl_div", 4, "eps", "-1");
  fails("loss_bce", 4, "eps", "0");
  fails("loss_bce", 4, "eps", "nan");
}

}  // namespace
}  // namespace graft
