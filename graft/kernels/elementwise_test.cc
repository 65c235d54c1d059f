#include "graft/kernels/elementwise.h"

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

std::vector<uint64_t> keys_of(int64_t rows) {
  std::vector<uint64_t> keys;
  for (int64_t i = 0; i < rows; ++i) keys.push_back((uint64_t{7} << 32) + static_cast<uint64_t>(i) * 3);
  return keys;
}

std::vector<float> all_elementwise(Context& context, int64_t rows, int64_t n, int64_t gap, const std::vector<float>& a,
                                   const std::vector<float>& b) {
  Matrix<float> x(rows, n, gap, a), z(rows, n, gap + 1, b), y(rows, n, gap);
  const auto magnitude = test::random_values<float>(n, 8, 2), bias = test::random_values<float>(n, 9);
  std::vector<float> norm = test::random_values<float>(n, 10), all;
  for (float& v : norm) v = v * v + 0.5f;
  add<float>(context, x.in(), z.in(), y.view);
  test::append(all, y.view);
  column_scale<float>(context, z.in(), magnitude, norm, bias, y.view);
  test::append(all, y.view);
  column_scale<float>(context, z.in(), magnitude, norm, {}, y.view);
  test::append(all, y.view);
  std::vector<float> dmagnitude = test::random_values<float>(n, 11), dbias = dmagnitude, sums = dmagnitude;
  column_scale_backward<float>(context, x.in(), z.in(), magnitude, norm, y.view, dmagnitude, dbias);
  test::append(all, y.view);
  column_scale_backward<float>(context, x.in(), z.in(), magnitude, norm, x.view, dmagnitude, {});
  test::append(all, x.view);
  test::append(all, dmagnitude);
  test::append(all, dbias);
  sum_rows<float>(context, z.in(), sums);
  test::append(all, sums);
  dropout<float>(context, RandomStream(3, 4), 5, keys_of(rows), 0.3, z.in(), y.view);
  test::append(all, y.view);
  add<float>(context, z.in(), z.in(), z.view);
  dropout<float>(context, RandomStream(3, 4), uint64_t{1} << 33, keys_of(rows), 0.0, z.in(), z.view);
  test::append(all, z.view);
  return all;
}

TEST(Elementwise, SameBitsOnEveryCpuLevelAndThreadCount) {
  for (const int64_t n : test::edge_sizes()) {
    const int64_t rows = n > 1000 ? 4 : 11;
    const auto a = test::random_values<float>(rows * n, 1), b = test::random_values<float>(rows * n, 2);
    test::expect_same_bits([&](Context& c) { return all_elementwise(c, rows, n, 3, a, b); },
                           "elementwise " + std::to_string(n));
  }
  const auto a = test::hostile_values(1300 * 37, 1), b = test::hostile_values(1300 * 37, 2);
  test::expect_same_bits([&](Context& c) { return all_elementwise(c, 1300, 37, 0, a, b); },
                         "hostile, several row blocks");
}

TEST(Elementwise, ColumnScaleGradientMatchesDifferencesInDouble) {
  test::TestContext t;
  const int64_t rows = 6, n = 13;
  std::vector<double> z = test::random_values<double>(rows * n, 1), magnitude = test::random_values<double>(n, 2),
                      bias = test::random_values<double>(n, 3), norm = test::random_values<double>(n, 4);
  for (double& v : norm) v = v * v + 0.5;
  const auto dy = test::random_values<double>(rows * n, 5);
  std::vector<double> y(z.size()), dz(z.size()), dmagnitude(magnitude.size()), dbias(bias.size());
  const View<const double, 2> zv(z.data(), rows, n), dyv(dy.data(), rows, n);
  const auto objective = [&] {
    column_scale<double>(t.context, zv, magnitude, norm, bias, View<double, 2>(y.data(), rows, n));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += dy[i] * y[i];
    return sum;
  };
  column_scale_backward<double>(t.context, dyv, zv, magnitude, norm, View<double, 2>(dz.data(), rows, n), dmagnitude,
                                dbias);
  test::expect_gradient(z, dz, objective, "dz");
  test::expect_gradient(magnitude, dmagnitude, objective, "dmagnitude");
  test::expect_gradient(bias, dbias, objective, "dbias");
  std::vector<double> sums(bias.size(), 1);
  sum_rows<double>(t.context, dyv, sums);
  for (size_t j = 0; j < sums.size(); ++j) EXPECT_NEAR(sums[j], 1 + dbias[j], 1e-14);
}

TEST(Dropout, DrawsAreNamedByRowUpdateAndFeature) {
  test::TestContext t;
  const int64_t rows = 50, n = 103;
  const std::vector<float> x(static_cast<size_t>(rows * n), 1.0f);
  const auto keys = keys_of(rows);
  const RandomStream stream(11, stream_hash("blocks.0.dropout"));
  const auto run = [&](uint64_t update, std::span<const uint64_t> row_keys, double p) {
    const auto count = static_cast<int64_t>(row_keys.size());
    std::vector<float> y(static_cast<size_t>(count * n));
    dropout<float>(t.context, stream, update, row_keys, p, View<const float, 2>(x.data(), count, n),
                   View<float, 2>(y.data(), count, n));
    return y;
  };
  const auto y = run(1, keys, 0.25);
  int64_t kept = 0;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const auto key = keys[static_cast<size_t>(i)];
      const auto words = philox4x32(stream.key(), {static_cast<uint32_t>(j / 4), 1, static_cast<uint32_t>(key),
                                                   static_cast<uint32_t>(key >> 32)});
      const bool keep = static_cast<float>(words[static_cast<size_t>(j % 4)] >> 8) * 0x1p-24f >= 0.25f;
      ASSERT_EQ(y[static_cast<size_t>(i * n + j)], keep ? static_cast<float>(1 / 0.75) : 0.0f);
      kept += keep;
    }
  }
  const double share = static_cast<double>(kept) / static_cast<double>(rows * n);
  EXPECT_NEAR(share, 0.75, 5 * std::sqrt(0.75 * 0.25 / static_cast<double>(rows * n)));  // five standard deviations
  EXPECT_NE(run(2, keys, 0.25), y);
  // A batch of other rows leaves a row's draws alone.
  const auto some = run(1, std::span(keys).subspan(20, 5), 0.25);
  EXPECT_EQ(std::memcmp(some.data(), y.data() + 20 * n, some.size() * sizeof(float)), 0);
  EXPECT_EQ(run(1, keys, 0), x);
  for (const float v : run(1, keys, 1 - 0x1p-53)) EXPECT_EQ(v, 0.0f);
}

TEST(Dropout, ADroppedNanIsGone) {
  test::TestContext t;
  std::vector<float> x(400, NAN), y(400);
  const uint64_t key = 9;
  dropout<float>(t.context, RandomStream(1, 2), 0, {&key, 1}, 0.5, View<const float, 2>(x.data(), 1, 400),
                 View<float, 2>(y.data(), 1, 400));
  int zeros = 0, nans = 0;
  for (const float v : y) {
    zeros += v == 0;
    nans += std::isnan(v);
  }
  EXPECT_EQ(zeros + nans, 400);
  EXPECT_GT(zeros, 100);
  EXPECT_GT(nans, 100);
}

}  // namespace
}  // namespace graft
