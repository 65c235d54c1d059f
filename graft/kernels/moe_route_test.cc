#include "graft/kernels/moe_route.h"

#include <gtest/gtest.h>

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

template <typename T>
struct Routed {
  Routed(int64_t tokens, int64_t experts, int64_t top_k)
      : p(tokens, experts),
        weights(tokens, top_k),
        experts_of(static_cast<size_t>(tokens * top_k), -7),
        rows(static_cast<size_t>(tokens * top_k), -7),
        offsets(static_cast<size_t>(experts) + 1, -7),
        lse(static_cast<size_t>(tokens)),
        statistics(2 * static_cast<size_t>(experts) + 2) {
    args.top_k = top_k;
    args.probabilities = p.view, args.weights = weights.view;
    args.experts = View<int32_t, 2>(experts_of.data(), tokens, top_k);
    args.lse = lse, args.offsets = offsets, args.rows = rows, args.statistics = statistics;
  }
  void run(Context& context, View<const T, 2> logits) {
    args.logits = logits;
    route<T>(context, args);
  }
  test::Matrix<T> p, weights;
  std::vector<int32_t> experts_of, rows, offsets;
  std::vector<T> lse, statistics;
  RouteArgs<T> args;
};

TEST(Route, ChoosesSortsAndRenormalizes) {
  test::TestContext t;
  const double logs[4] = {std::log(1.0), std::log(2.0), std::log(4.0), std::log(3.0)};
  test::Matrix<double> z(3, 4);
  for (int64_t e = 0; e < 4; ++e) z.view(0, e) = logs[e], z.view(1, e) = logs[3 - e], z.view(2, e) = 0;
  Routed<double> r(3, 4, 2);
  r.run(t.context, z.in());
  EXPECT_EQ(r.experts_of, (std::vector<int32_t>{2, 3, 1, 0, 0, 1}));  // by falling p; of equals the lowest index
  EXPECT_NEAR(r.weights.view(0, 0), 4.0 / 7, 1e-15);
  EXPECT_NEAR(r.weights.view(0, 1), 3.0 / 7, 1e-15);
  EXPECT_EQ(r.weights.view(2, 0), 0.5);
  EXPECT_EQ(r.offsets, (std::vector<int32_t>{0, 2, 4, 5, 6}));
  EXPECT_EQ(r.rows, (std::vector<int32_t>{3, 4, 2, 5, 0, 1}));  // by expert, then by token
  EXPECT_NEAR(r.statistics[0], (0.1 + 0.3 + 0.25) / 3, 1e-15);
  EXPECT_NEAR(r.statistics[4], (2 * std::log(10.0) * std::log(10.0) + std::log(4.0) * std::log(4.0)) / 3, 1e-14);
  EXPECT_EQ(r.statistics[5], 0);  // none dropped
  EXPECT_EQ(r.statistics[6], 2.0 / 6);
  r.args.renormalize = false;
  r.run(t.context, z.in());
  EXPECT_NEAR(r.weights.view(0, 0), 0.4, 1e-15);
}

TEST(Route, CapacityKeepsTheFirstTokens) {
  test::TestContext t;
  test::Matrix<float> z(5, 3);
  for (int64_t i = 0; i < 5; ++i) z.view(i, 0) = 2, z.view(i, 1 + i % 2) = 1, z.view(i, 2 - i % 2) = 0;
  Routed<float> r(5, 3, 2);
  r.args.capacity = 2;
  r.run(t.context, z.in());
  EXPECT_EQ(r.offsets, (std::vector<int32_t>{0, 2, 4, 6}));
  EXPECT_FLOAT_EQ(r.statistics[4], 0.4f);  // 4 of 10 dropped
  EXPECT_EQ(r.statistics[5], 0.5f);        // what was chosen, before that
  EXPECT_EQ(std::vector<int32_t>(r.rows.begin(), r.rows.begin() + 6), (std::vector<int32_t>{0, 2, 1, 5, 3, 7}));
}

// moe.md, section 8.
TEST(Route, ExtremeLogits) {
  test::TestContext t;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rows = {{1e4f, -1e4f, 0, 5}, {3e38f, -3e38f, 0, 1},
                                                {kInf, 0, 1, 2},     {-kInf, -kInf, -kInf, -kInf},
                                                {7, 7, 7, 7},        {kInf, 1, kInf, 0}};
  test::Matrix<float> z(6, 4);
  for (int64_t i = 0; i < 6; ++i)
    std::copy(rows[static_cast<size_t>(i)].begin(), rows[static_cast<size_t>(i)].end(), z.view.row(i));
  Routed<float> r(6, 4, 2);
  r.run(t.context, z.in());
  for (int64_t i = 0; i < 6; ++i) {
    float sum = 0;
    for (int64_t e = 0; e < 4; ++e) {
      EXPECT_TRUE(std::isfinite(r.p.view(i, e))) << i;
      sum += r.p.view(i, e);
    }
    EXPECT_NEAR(sum, 1, 1e-6) << i;  // the bar of moe.md
    for (int64_t k = 0; k < 2; ++k) EXPECT_TRUE(std::isfinite(r.weights.view(i, k))) << i;
  }
  EXPECT_EQ(r.p.view(2, 0), 1.0f);
  EXPECT_EQ(r.p.view(3, 2), 0.25f);
  EXPECT_EQ(r.weights.view(4, 1), 0.5f);
  EXPECT_EQ(r.experts_of[8], 0);
  EXPECT_EQ(r.experts_of[9], 1);
  EXPECT_EQ(r.p.view(5, 2), 0.5f);
}

TEST(Route, SameBitsEverywhere) {
  for (const auto& [tokens, experts, top_k] : {std::tuple{1, 1, 1}, {600, 5, 2}, {40, 130, 8}, {3, 64, 64}}) {
    test::Matrix<float> z(tokens, experts, 3, test::random_values<float>(tokens * experts, 4, 3));
    for (const bool renormalize : {true, false}) {
      test::expect_same_bits(
          [&, n = tokens, e = experts, k = top_k](Context& context) {
            Routed<float> r(n, e, k);
            r.args.renormalize = renormalize;
            r.run(context, z.in());
            test::Matrix<float> dw(n, k, 0, test::random_values<float>(n * k, 5)), dz(n, e);
            const std::vector<float> ds = test::random_values<float>(2 * e + 2, 6);
            RouteBackwardArgs<float> back;
            back.probabilities = r.p.in(), back.weights = r.weights.in();
            back.experts = View<const int32_t, 2>(r.experts_of.data(), n, k);
            back.lse = r.lse, back.renormalize = renormalize, back.dweights = dw.in(), back.dstatistics = ds;
            back.dlogits = dz.view;
            route_backward<float>(context, back);
            std::vector<float> all;
            test::append(all, r.p.view), test::append(all, r.weights.view), test::append(all, dz.view);
            test::append(all, r.experts_of), test::append(all, r.rows), test::append(all, r.offsets);
            test::append(all, r.lse), test::append(all, r.statistics);
            return all;
          },
          "route");
    }
  }
}

TEST(Route, GradientAgainstDifferences) {
  constexpr int64_t kTokens = 4, kExperts = 6, kTopK = 3;
  test::TestContext t;
  for (const bool renormalize : {true, false}) {
    std::vector<double> z = test::random_values<double>(kTokens * kExperts, 8, 2);
    const std::vector<double> dw = test::random_values<double>(kTokens * kTopK, 9),
                              ds = test::random_values<double>(2 * kExperts + 2, 10);
    Routed<double> r(kTokens, kExperts, kTopK);
    r.args.renormalize = renormalize;
    const View<const double, 2> logits(z.data(), kTokens, kExperts);
    r.run(t.context, logits);
    const std::vector<int32_t> chosen = r.experts_of;
    test::Matrix<double> gradient(kTokens, kExperts);
    RouteBackwardArgs<double> back;
    back.probabilities = r.p.in(), back.weights = r.weights.in();
    back.experts = View<const int32_t, 2>(r.experts_of.data(), kTokens, kTopK);
    back.lse = r.lse, back.renormalize = renormalize;
    back.dweights = View<const double, 2>(dw.data(), kTokens, kTopK), back.dstatistics = ds;
    back.dlogits = gradient.view;
    route_backward<double>(t.context, back);
    test::expect_gradient(
        z, gradient.values,
        [&] {
          r.run(t.context, logits);
          EXPECT_EQ(r.experts_of, chosen);  // else a step crosses a kink, and the seed is a bad one
          double sum = 0;
          for (size_t i = 0; i < dw.size(); ++i) sum += dw[i] * r.weights.values[i];
          // The shares are constants.
          for (size_t i = 0; i <= kExperts; ++i) sum += ds[i] * r.statistics[i];
          return sum;
        },
        renormalize ? "renormalized" : "plain");
  }
}

TEST(RowGate, SameBitsAndGradient) {
  test::expect_same_bits(
      [](Context& context) {
        test::Matrix<float> x(9, 75, 2, test::random_values<float>(9 * 75, 1)), y(9, 75), dx(9, 75);
        const std::vector<float> z = test::random_values<float>(9, 2, 4);
        std::vector<float> dz(9), all;
        row_gate<float>(context, x.in(), z, {}, y.view);
        test::append(all, y.view);
        row_gate<float>(context, x.in(), z, y.in(), y.view);
        row_gate_backward<float>(context, y.in(), x.in(), z, dx.view, dz);
        test::append(all, y.view), test::append(all, dx.view), test::append(all, dz);
        return all;
        return all;
      },
      "row_gate");
  test::TestContext t;
  std::vector<double> x = test::random_values<double>(10, 3), z = {0.5, -2}, dx(10), dz(2), y(10);
  const std::vector<double> dy = test::random_values<double>(10, 4);
  const View<const double, 2> in(x.data(), 2, 5), upstream(dy.data(), 2, 5);
  row_gate_backward<double>(t.context, upstream, in, z, View<double, 2>(dx.data(), 2, 5), dz);
  const auto objective = [&] {
    row_gate<double>(t.context, in, z, upstream, View<double, 2>(y.data(), 2, 5));
    double sum = 0;
    for (size_t i = 0; i < 10; ++i) sum += y[i] * dy[i];
    return sum;
  };
  test::expect_gradient(x, dx, objective, "x");
  test::expect_gradient(z, dz, objective, "z");
}

}  // namespace
}  // namespace graft
