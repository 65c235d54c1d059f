#include "graft/kernels/correlation.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

struct Moments {
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
};
Moments moments(const std::vector<float>& x, const std::vector<float>& y) {
  long double sx = 0, sy = 0, xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) sx += x[i], sy += y[i];
  const long double mx = sx / x.size(), my = sy / x.size();
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx), yy += (y[i] - my) * (y[i] - my), xy += (x[i] - mx) * (y[i] - my);
  }
  return {static_cast<double>(mx), static_cast<double>(my), static_cast<double>(xx), static_cast<double>(yy),
          static_cast<double>(xy)};
}

TEST(Correlation, PairsFarFromZero) {
  test::TestContext t(2);
  for (const int64_t n : {2, 7, 63, 4096, 4097, 50000}) {
    t.context.reserve(correlation_scratch(n));
    for (const float offset : {0.0f, 1000.0f, -1e6f, 1e-30f}) {
      const float scale = offset == 1e-30f ? 1e-15f : 1.0f;
      std::vector<float> x = test::random_values<float>(n, 1), y = test::random_values<float>(n, 2);
      for (size_t i = 0; i < x.size(); ++i) {
        y[i] = (0.6f * x[i] + 0.8f * y[i]) * scale - offset / 2;
        x[i] = x[i] * scale + offset;
      }
      const Moments m = moments(x, y);
      if (m.xx == 0 || m.yy == 0) continue;
      const double r = m.xy / std::sqrt(m.xx * m.yy), size = static_cast<double>(n);
      EXPECT_NEAR(reduce_correlation(t.context, x, y), r, 1e-5 * std::fabs(r) + 2e-6) << n << ", " << offset;
      for (const int64_t ddof : {0, 1}) {
        const double c = m.xy / static_cast<double>(n - ddof);
        EXPECT_NEAR(reduce_covariance(t.context, x, y, ddof), c,
                    1e-5 * std::fabs(c) + 1e-5 * std::sqrt(m.xx * m.yy) / size)
            << n << ", " << offset;
      }
    }
  }
}

TEST(Correlation, EdgesOfPairs) {
  test::TestContext t(1);
  t.context.reserve(correlation_scratch(10000));
  const auto correlation = [&](std::vector<float> x, std::vector<float> y) {
    return reduce_correlation(t.context, x, y);
  };
  EXPECT_TRUE(std::isnan(correlation({}, {})));
  EXPECT_TRUE(std::isnan(correlation({1}, {2})));
  EXPECT_EQ(correlation({1, 2, 4}, {2, 4, 8}), 1.0f);
  EXPECT_EQ(correlation({1, 2, 4}, {-2, -4, -8}), -1.0f);
  EXPECT_TRUE(std::isnan(correlation({1, NAN, 4}, {2, 4, 8})));
  EXPECT_TRUE(std::isnan(correlation({1, INFINITY, 4}, {2, 4, 8})));
  // A constant whose mean is not a float any more: no variance all the same.
  const std::vector<float> ramp = test::random_values<float>(9999, 1);
  EXPECT_TRUE(std::isnan(correlation(std::vector<float>(9999, 0.1f), ramp)));
  EXPECT_TRUE(std::isnan(correlation(ramp, std::vector<float>(9999, -1e6f / 3))));
  std::vector<float> nearly(9999, 0.1f);
  nearly[77] = std::nextafter(0.1f, 1.0f);
  EXPECT_FALSE(std::isnan(correlation(nearly, ramp)));

  const std::vector<float> one = {3}, two = {3, 5};
  EXPECT_TRUE(std::isnan(reduce_covariance(t.context, {}, {}, 0)));
  EXPECT_TRUE(std::isnan(reduce_covariance(t.context, one, one, 1)));
  EXPECT_EQ(reduce_covariance(t.context, one, one, 0), 0.0f);
  EXPECT_EQ(reduce_covariance(t.context, two, two, 1), 2.0f);
}

TEST(Correlation, WeightedSums) {
  test::TestContext t(2);
  for (const int64_t n : {0, 1, 65, 4097, 30000}) {
    t.context.reserve(correlation_scratch(n));
    const std::vector<float> x = test::random_values<float>(n, 1), w = test::random_values<float>(n, 2);
    double sum = 0, weight = 0, terms = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double product = static_cast<double>(w[i]) * static_cast<double>(x[i]);
      sum += product, weight += static_cast<double>(w[i]), terms += std::fabs(product);
    }
    EXPECT_NEAR(reduce_weighted_sum(t.context, x, w), sum, 1e-6 * std::fabs(sum) + 2e-6 * terms);
    if (n == 0) {
      EXPECT_TRUE(std::isnan(reduce_weighted_mean(t.context, x, w)));
    } else {
      EXPECT_NEAR(reduce_weighted_mean(t.context, x, w), sum / weight,
                  (1e-5 * std::fabs(sum) + 4e-6 * terms) / std::fabs(weight));
    }
  }
  const std::vector<float> x = {1, 2, 3}, cancel = {1, -2, 1}, mixed = {2, -1, 1};
  EXPECT_TRUE(std::isnan(reduce_weighted_mean(t.context, x, cancel)));
  EXPECT_EQ(reduce_weighted_mean(t.context, x, mixed), 1.5f);
}

std::vector<float> column(const View<const float, 2>& x, int64_t c) {
  std::vector<float> values(static_cast<size_t>(x.extent(0)));
  for (int64_t r = 0; r < x.extent(0); ++r) values[static_cast<size_t>(r)] = x(r, c);
  return values;
}

TEST(Correlation, MatricesOfOddShapes) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{2, 1},
                                      {17, 3},
                                      {256, 16},
                                      {257, 17},
                                      {1000, 35},
                                      {5000, 5},
                                      {700, 50},
                                      {300, 290}}) {
    for (const float offset : {0.0f, 3000.0f}) {
      test::Matrix<float> x(rows, columns, 2, test::random_values<float>(rows * columns, 3));
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 1; c < columns; ++c) x.view(r, c) = x.view(r, c) * 0.7f + x.view(r, c - 1) * 0.5f;
        for (int64_t c = 0; c < columns; ++c) x.view(r, c) += offset;
      }
      test::Matrix<float> covariance(columns, columns), pearson(columns, columns);
      test::TestContext t(2);
      t.context.reserve(covariance_scratch(rows, columns));
      reduce_covariance_matrix(t.context, x.in(), 1, covariance.view);
      reduce_pearson_pairwise(t.context, x.in(), pearson.view);
      const double most = 2.0;  // no variance here is above it
      for (int64_t a = 0; a < columns; ++a) {
        for (int64_t b = a; b < columns; b += 1 + b % 5) {
          const Moments m = moments(column(x.in(), a), column(x.in(), b));
          const double c = m.xy / static_cast<double>(rows - 1);
          ASSERT_NEAR(covariance.view(a, b), c, 1e-5 * (std::fabs(c) + most)) << a << ", " << b << " of " << rows;
          ASSERT_EQ(covariance.view(a, b), covariance.view(b, a));
          const double r = a == b ? 1 : m.xy / std::sqrt(m.xx * m.yy);
          ASSERT_NEAR(pearson.view(a, b), r, a == b ? 0 : 1e-5 * std::fabs(r) + 4e-6)
              << a << ", " << b << " of " << rows;
          ASSERT_EQ(pearson.view(a, b), pearson.view(b, a));
        }
      }
    }
  }
}

TEST(Correlation, MatricesAreTheSameEverywhere) {
  for (const auto& shape : {std::pair<int64_t, int64_t>{3000, 21}, {600, 270}, {40, 1}}) {
    const int64_t rows = shape.first, columns = shape.second;
    const test::Matrix<float> x(rows, columns, 1, test::random_values<float>(rows * columns, 3));
    test::expect_same_bits(
        [&](Context& context) {
          test::Matrix<float> covariance(columns, columns), pearson(columns, columns);
          context.reserve(covariance_scratch(rows, columns));
          reduce_covariance_matrix(context, x.in(), 0, covariance.view);
          reduce_pearson_pairwise(context, x.in(), pearson.view);
          std::vector<float> all;
          test::append(all, covariance.view);
          test::append(all, pearson.view);
          return all;
        },
        "matrix", covariance_scratch(rows, columns));
  }
}

TEST(Correlation, EdgesOfMatrices) {
  test::TestContext t(1);
  test::Matrix<float> x(600, 3), y(3, 3);
  t.context.reserve(covariance_scratch(600, 3));
  for (int64_t r = 0; r < 600; ++r)
    x.view(r, 0) = static_cast<float>(r % 7), x.view(r, 1) = 0.1f, x.view(r, 2) = static_cast<float>(r % 5);
  reduce_pearson_pairwise(t.context, x.in(), y.view);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::isnan(y.view(1, i)) && std::isnan(y.view(i, 1)));
  }
  EXPECT_EQ(y.view(0, 0), 1.0f);
  EXPECT_LT(std::fabs(y.view(0, 2)), 0.1f);
  x.view(5, 2) = NAN;
  reduce_covariance_matrix(t.context, x.in(), 1, y.view);
  EXPECT_TRUE(std::isnan(y.view(2, 2)) && std::isnan(y.view(0, 2)) && !std::isnan(y.view(0, 1)));
  reduce_covariance_matrix(t.context, View<const float, 2>(x.values.data(), 1, 3), 1, y.view);
  EXPECT_TRUE(std::isnan(y.view(0, 0)) && std::isnan(y.view(2, 1)));
  reduce_covariance_matrix(t.context, View<const float, 2>(x.values.data(), 1, 3), 0, y.view);
  EXPECT_EQ(y.view(0, 1), 0.0f);
  reduce_pearson_pairwise(t.context, View<const float, 2>(x.values.data(), 0, 3), y.view);
  EXPECT_TRUE(std::isnan(y.view(0, 0)));
}

TEST(Correlation, WrongInputsAreErrors) {
  for (const char* name : {"reduce_correlation", "reduce_covariance", "reduce_weighted_sum", "reduce_weighted_mean"}) {
    KernelCall call;
    call.add_input("x", DType::kF32, {6});
    EXPECT_THROW(find_kernel(name)->prepare(call), Error);
    call.add_input("y", DType::kF32, {5});
    call.add_input("w", DType::kF32, {5});
    EXPECT_THROW(find_kernel(name)->prepare(call), Error);
  }
  for (const char* name : {"reduce_covariance_matrix", "reduce_pearson_pairwise"}) {
    KernelCall flat, wide;
    flat.add_input("x", DType::kF32, {6});
    EXPECT_THROW(find_kernel(name)->prepare(flat), Error);
    wide.add_input("x", DType::kF32, {0, 40000});
    EXPECT_THROW(find_kernel(name)->prepare(wide), Error);
  }
  KernelCall call;
  find_kernel("reduce_covariance")->example(call, 10, 1);
  call.set_parameter("ddof", "-1");
  EXPECT_THROW(find_kernel("reduce_covariance")->prepare(call), Error);
}

}  // namespace
}  // namespace graft
