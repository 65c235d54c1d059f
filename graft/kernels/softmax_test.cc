#include "graft/kernels/softmax.h"

#include "graft/kernels/math.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

struct Problem {
  int64_t rows, n, gap;
  std::vector<float> values;
  std::vector<int32_t> targets;
  Problem(int64_t rows_, int64_t n_, int64_t gap_, bool hostile) : rows(rows_), n(n_), gap(gap_) {
    values = hostile ? test::hostile_values(rows * n, 3) : test::random_values<float>(rows * n, 3, 8);
    for (int64_t i = 0; i < rows; ++i) targets.push_back(i % 5 == 3 ? -1 : static_cast<int32_t>(i * 7919 % n));
  }
};

std::vector<float> all_softmaxes(Context& context, const Problem& p, bool in_place) {
  Matrix<float> x(p.rows, p.n, p.gap, p.values), y(p.rows, p.n, in_place ? p.gap : p.gap + 1);
  std::vector<float> per_row(static_cast<size_t>(p.rows)), row_sum(per_row.size()), all;
  const std::vector<float> weight = test::random_values<float>(p.n, 4);
  const LossValue loss = loss_cross_entropy(context, x.in(), p.targets, weight, -1, per_row);
  all = {loss.sum, loss.mean};
  test::append(all, per_row);
  const auto run = [&](auto&& kernel) {
    if (in_place) {
      Matrix<float> z(p.rows, p.n, p.gap, p.values);
      kernel(z.in(), z.view);
      test::append(all, z.view);
    } else {
      kernel(x.in(), y.view);
      test::append(all, y.view);
    }
  };
  run([&](auto in, auto out) { softmax_stable(context, in, out); });
  run([&](auto in, auto out) { softmax_online(context, in, out, per_row, row_sum); });
  run([&](auto in, auto out) { log_softmax(context, in, out); });
  run([&](auto in, auto out) { fused_softmax_cross_entropy(context, in, p.targets, -1, 0.125, row_sum, out); });
  test::append(all, per_row);
  test::append(all, row_sum);
  return all;
}

TEST(Softmax, SameBitsOnEveryCpuLevelAndThreadCountInPlaceOrNot) {
  for (const int64_t n : {1, 2, 7, 15, 16, 17, 63, 64, 65, 100, 1000, 4095, 4096, 4097, 10000}) {
    const int64_t rows = n > 4000 ? 3 : 37;
    for (const bool hostile : {false, true}) {
      const Problem p(rows, n, n % 3, hostile);
      test::TestContext t;
      const auto apart = all_softmaxes(t.context, p, false), in_place = all_softmaxes(t.context, p, true);
      for (size_t i = 0; i < apart.size(); ++i) {
        ASSERT_TRUE(apart[i] == in_place[i] || (std::isnan(apart[i]) && std::isnan(in_place[i]))) << n << " at " << i;
      }
      test::expect_same_bits([&](Context& c) { return all_softmaxes(c, p, hostile); }, "softmax " + std::to_string(n));
    }
  }
}

TEST(Softmax, RowsSumToOneAndAShiftChangesNothing) {
  test::TestContext t;
  for (const int64_t n : {1, 100, 4096, 9000}) {
    // Multiples of 1/64, so that the shift is exact.
    std::vector<float> values = test::random_values<float>(2 * n, 3, 8);
    for (float& v : values) v = std::round(v * 64) / 64;
    Matrix<float> x(2, n, 0, values), y(2, n), z(2, n);
    softmax_stable(t.context, x.in(), y.view);
    for (int64_t i = 0; i < 2; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += y.view(i, j);
      EXPECT_NEAR(sum, 1, 4e-6);
    }
    for (float& v : values) v += 1024;
    Matrix<float> shifted(2, n, 0, values);
    softmax_stable(t.context, shifted.in(), z.view);
    EXPECT_EQ(std::memcmp(y.values.data(), z.values.data(), y.values.size() * sizeof(float)), 0);
  }
}

TEST(Softmax, EdgeRows) {
  constexpr float kInf = INFINITY;
  const std::vector<std::vector<float>> rows = {{-kInf, -kInf, -kInf}, {-kInf, 2, -kInf},   {1, kInf, 0},
                                                {0, NAN, 5},           {NAN, -kInf, -kInf}, {-0.0f, -0.0f, 0}};
  test::expect_same_bits(
      [&](Context& c) {
        std::vector<float> all;
        for (const auto& row : rows) {
          Matrix<float> x(1, 3, 0, row), y(1, 3);
          std::vector<float> maximum(1), sum(1);
          softmax_online(c, x.in(), y.view, maximum, sum);
          const bool fine = &row == &rows[1] || &row == &rows[5];
          for (const float v : y.values) EXPECT_EQ(std::isnan(v), !fine);
          EXPECT_EQ(std::isnan(maximum[0]), &row == &rows[3] || &row == &rows[4]);
          EXPECT_EQ(std::isnan(sum[0]), !fine);
          if (&row == &rows[1]) {
            EXPECT_EQ(y.values, (std::vector<float>{0, 1, 0}));
          }
          test::append(all, y.values);
          test::append(all, maximum);
          test::append(all, sum);
        }
        return all;
      },
      "edge rows");
}

TEST(Softmax, WrongShapesAreErrors) {
  const auto fails = [](const char* name, std::vector<int64_t> logits, std::vector<int64_t> targets, int32_t target) {
    KernelCall call;
    call.add_input("x", DType::kF32, logits);
    call.add_input("logits", DType::kF32, logits);
    KernelTensor& t = call.add_input("targets", DType::kI32, targets);
    std::fill_n(t.data.as<int32_t>().begin(), t.size(), target);
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name;
  };
  fails("softmax_stable", {7}, {1}, 0);
  fails("softmax_online", {7, 0}, {1}, 0);
  for (const char* name : {"loss_cross_entropy", "fused_softmax_cross_entropy"}) {
    fails(name, {3, 4}, {2}, 0);
    fails(name, {3, 4}, {3}, 4);
    fails(name, {3, 4}, {3}, -1);
    fails(name, {3, 0}, {3}, -100);
    fails(name, {12}, {12}, 0);
  }
}

TEST(CrossEntropy, NothingThatCountsHasNoMean) {
  test::TestContext t;
  Matrix<float> logits(2, 3, 0, {1, 2, 3, NAN, 2, 1}), grad(2, 3, 0, {9, 9, 9, 9, 9, 9});
  const std::vector<int32_t> targets = {-100, -100};
  std::vector<float> loss = {5, 5};
  const LossValue value = loss_cross_entropy(t.context, logits.in(), targets, {}, -100, loss);
  EXPECT_EQ(value.sum, 0);
  EXPECT_TRUE(std::isnan(value.mean));
  fused_softmax_cross_entropy(t.context, logits.in(), targets, -100, 1, loss, grad.view);
  EXPECT_EQ(loss, (std::vector<float>{0, 0}));
  EXPECT_EQ(grad.values, std::vector<float>(6, 0.0f));
}

// The loss and the gradient are those of the single kernels: softmax, minus one at the target.
TEST(CrossEntropy, FusedIsTheCompositionOfItsParts) {
  test::TestContext t;
  for (const int64_t n : {1, 33, 4096, 5000}) {
    const Problem p(11, n, 0, false);
    Matrix<float> x(p.rows, n, 0, p.values), y(p.rows, n), grad(p.rows, n);
    std::vector<float> per_row(11), loss(11);
    softmax_stable(t.context, x.in(), y.view);
    loss_cross_entropy(t.context, x.in(), p.targets, {}, -1, per_row);
    fused_softmax_cross_entropy(t.context, x.in(), p.targets, -1, 0.5, loss, grad.view);
    EXPECT_EQ(loss, per_row);
    for (int64_t i = 0; i < p.rows; ++i) {
      const int32_t target = p.targets[static_cast<size_t>(i)];
      for (int64_t j = 0; j < n; ++j) {
        const float want = target < 0 ? 0 : 0.5f * (y.view(i, j) - (j == target ? 1.0f : 0.0f));
        ASSERT_EQ(grad.view(i, j), want) << n;
      }
    }
  }
}

// Outputs from 4 Mi elements on are stored past the cache, lines of neighbouring rows shared: every element is there.
TEST(Softmax, LargeOutputs) {
  const int64_t n = 1003, rows = (int64_t{4} << 20) / n + 2;
  test::TestContext t(3);
  const auto values = test::random_values<float>(n, 3, 8);
  Matrix<float> one(1, n, 0, values), want(1, n), x(rows, n), y(rows, n);
  for (int64_t i = 0; i < rows; ++i) std::copy(values.begin(), values.end(), x.view.row(i));
  const std::vector<int32_t> targets(static_cast<size_t>(rows), 1002);
  std::vector<float> loss(targets.size());
  const auto check = [&](const char* what) {
    for (int64_t i = 0; i < rows; ++i)
      ASSERT_EQ(std::memcmp(y.view.row(i), want.view.data(), n * sizeof(float)), 0) << what << i;
  };
  softmax_stable(t.context, one.in(), want.view);
  softmax_stable(t.context, x.in(), y.view);
  check("softmax ");
  log_softmax(t.context, one.in(), want.view);
  log_softmax(t.context, x.in(), y.view);
  check("log_softmax ");
  fused_softmax_cross_entropy(t.context, one.in(), {targets.data(), 1}, -1, 1, {loss.data(), 1}, want.view);
  fused_softmax_cross_entropy(t.context, x.in(), targets, -1, 1, loss, y.view);
  check("gradient ");
}

TEST(LogSoftmax, MatchesTheFormulaInPlaceAtEveryLevel) {
  for (const int64_t n : {1, 2, 63, 64, 65, 4096, 4097, 10000}) {
    const std::vector<float> z = test::random_values<float>(n, 5, 20);
    double top = -INFINITY, sum = 0;
    for (const float v : z) top = std::max<double>(top, v);
    for (const float v : z) sum += std::exp(v - top);
    const double log_z = top + std::log(sum);
    std::vector<float> y(z.size());
    log_softmax(z, y);
    for (size_t i = 0; i < z.size(); ++i) ASSERT_NEAR(y[i], z[i] - log_z, 6e-6);  // three roundings of f32 below 64
    test::expect_same_bits(
        [&](Context&) {
          std::vector<float> all = z;
          log_softmax(all, all);
          return all;
        },
        "log_softmax " + std::to_string(n));
  }
}

// Tokens ruled out by -infinity count for nothing, even a whole block of 4,096 of them; a row of nothing else has no
// softmax.
TEST(LogSoftmax, MinusInfinity) {
  test::expect_same_bits(
      [&](Context&) {
        std::vector<float> z(9000, -INFINITY);
        z[5000] = 2;
        z[8999] = 2;
        std::vector<float> y(z.size());
        log_softmax(z, y);
        EXPECT_EQ(y[0], -INFINITY);
        EXPECT_NEAR(y[5000], -0.693147f, 1e-6);
        z.assign(z.size(), -INFINITY);
        log_softmax(z, z);
        for (const float v : z) EXPECT_TRUE(std::isnan(v));
        return y;
      },
      "minus infinity");
}

}  // namespace
}  // namespace graft
