#include "graft/kernels/norm.h"

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

std::vector<float> run_all(Context& context, int64_t rows, int64_t n, int64_t gap, const std::vector<float>& values,
                           const std::vector<float>& upstream, bool with_residual, bool in_place) {
  const std::vector<float> weight = test::random_values<float>(n, 5);
  Matrix<float> x(rows, n, gap, values), y(rows, n, gap), dy(rows, n, gap + 1, upstream), dx(rows, n, gap);
  Matrix<float> residual(rows, n, gap + 2, upstream);
  std::vector<float> rrms(static_cast<size_t>(rows)), dweight = test::random_values<float>(n, 6), all;
  rms_norm<float>(context, x.in(), weight, 1e-6, y.view, rrms);
  test::append(all, y.view);
  rms_norm_backward<float>(context, dy.in(), x.in(), weight, rrms,
                           with_residual ? residual.in() : View<const float, 2>(),
                           in_place ? (with_residual ? residual.view : dy.view) : dx.view, dweight);
  test::append(all, in_place ? (with_residual ? residual.view : dy.view) : dx.view);
  test::append(all, rrms);
  test::append(all, dweight);
  rms_norm<float>(context, x.in(), weight, 1e-6, x.view, {});
  test::append(all, x.view);
  return all;
}

TEST(RmsNorm, SameBitsOnEveryCpuLevelAndThreadCount) {
  for (const int64_t n : test::edge_sizes()) {
    for (const bool in_place : {false, true}) {
      const int64_t rows = n > 5000 ? 3 : 9;
      const auto values = test::random_values<float>(rows * n, 1, 2),
                 upstream = test::random_values<float>(rows * n, 2);
      test::expect_same_bits(
          [&](Context& c) { return run_all(c, rows, n, in_place ? 0 : 5, values, upstream, n % 2 == 0, in_place); },
          "rms_norm " + std::to_string(n));
    }
  }
  const auto values = test::hostile_values(40 * 257, 3), upstream = test::hostile_values(40 * 257, 4);
  test::expect_same_bits([&](Context& c) { return run_all(c, 40, 257, 3, values, upstream, true, false); }, "hostile");
  const auto many = test::random_values<float>(1200 * 70, 3), up = test::random_values<float>(1200 * 70, 4);
  test::expect_same_bits([&](Context& c) { return run_all(c, 1200, 70, 0, many, up, false, false); },
                         "several row blocks");
}

TEST(RmsNorm, MatchesTheFormulaAndAliasingChangesNothing) {
  test::TestContext t;
  const int64_t rows = 5, n = 1000;
  const auto values = test::random_values<float>(rows * n, 1, 2), upstream = test::random_values<float>(rows * n, 2);
  const auto apart = run_all(t.context, rows, n, 0, values, upstream, true, false);
  const auto in_place = run_all(t.context, rows, n, 0, values, upstream, true, true);
  EXPECT_EQ(std::memcmp(apart.data(), in_place.data(), apart.size() * sizeof(float)), 0);
  const auto weight = test::random_values<float>(n, 5);
  for (int64_t i = 0; i < rows; ++i) {
    double squares = 0, dot = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double x = values[static_cast<size_t>(i * n + j)];
      squares += x * x;
      dot += x * upstream[static_cast<size_t>(i * n + j)] * weight[static_cast<size_t>(j)];
    }
    const double r = 1 / std::sqrt(squares / n + 1e-6);
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>(i * n + j);
      const double w = weight[static_cast<size_t>(j)], x = values[at];
      test::expect_close(apart[at], x * r * w, 4e-7, "y");  // three roundings of f32 and the sum's
      const double dx = upstream[at] + r * (upstream[at] * w - x * r * r * dot / n);
      test::expect_close(apart[static_cast<size_t>(rows * n) + at], dx, 4e-7, "dx");
    }
  }
}

TEST(RmsNorm, GradientMatchesDifferencesInDouble) {
  test::TestContext t;
  const int64_t rows = 3, n = 67;
  std::vector<double> x = test::random_values<double>(rows * n, 1, 2), weight = test::random_values<double>(n, 2);
  const auto dy = test::random_values<double>(rows * n, 3);
  std::vector<double> y(x.size()), rrms(rows), dx(x.size()), dweight(weight.size());
  const View<const double, 2> xv(x.data(), rows, n), dyv(dy.data(), rows, n);
  const auto objective = [&] {
    rms_norm<double>(t.context, xv, weight, 1e-5, View<double, 2>(y.data(), rows, n), rrms);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += dy[i] * y[i];
    return sum;
  };
  objective();
  rms_norm_backward<double>(t.context, dyv, xv, weight, rrms, {}, View<double, 2>(dx.data(), rows, n), dweight);
  test::expect_gradient(x, dx, objective, "dx");
  test::expect_gradient(weight, dweight, objective, "dweight");
}

TEST(RmsNorm, NanStaysInItsRow) {
  test::TestContext t;
  std::vector<float> x = test::random_values<float>(3 * 100, 1), weight(100, 1.0f), y(300);
  x[150] = NAN;
  rms_norm<float>(t.context, View<const float, 2>(x.data(), 3, 100), weight, 1e-6, View<float, 2>(y.data(), 3, 100),
                  {});
  for (size_t i = 0; i < 300; ++i) EXPECT_EQ(std::isnan(y[i]), i / 100 == 1) << i;
}

}  // namespace
}  // namespace graft
