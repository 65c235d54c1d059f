#include "graft/kernels/norm.h"

#include "graft/kernels/prng.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

std::vector<float> all_norms(Context& context, int64_t rows, int64_t n, int64_t gap, const std::vector<float>& values,
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
          [&](Context& c) { return all_norms(c, rows, n, in_place ? 0 : 5, values, upstream, n % 2 == 0, in_place); },
          "rms_norm " + std::to_string(n));
    }
  }
  const auto values = test::hostile_values(40 * 257, 3), upstream = test::hostile_values(40 * 257, 4);
  test::expect_same_bits([&](Context& c) { return all_norms(c, 40, 257, 3, values, upstream, true, false); },
                         "hostile");
  const auto many = test::random_values<float>(1200 * 70, 3), up = test::random_values<float>(1200 * 70, 4);
  test::expect_same_bits([&](Context& c) { return all_norms(c, 1200, 70, 0, many, up, false, false); },
                         "several row blocks");
}

TEST(RmsNorm, MatchesTheFormulaAndAliasingChangesNothing) {
  test::TestContext t;
  const int64_t rows = 5, n = 1000;
  const auto values = test::random_values<float>(rows * n, 1, 2), upstream = test::random_values<float>(rows * n, 2);
  const auto apart = all_norms(t.context, rows, n, 0, values, upstream, true, false);
  const auto in_place = all_norms(t.context, rows, n, 0, values, upstream, true, true);
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

std::vector<float> run_layer_norm(Context& context, int64_t rows, int64_t n, int64_t gap,
                                  const std::vector<float>& values, const std::vector<float>& upstream, bool in_place) {
  const std::vector<float> gamma = test::random_values<float>(n, 5), beta = test::random_values<float>(n, 6);
  Matrix<float> x(rows, n, gap, values), y(rows, n, gap), dy(rows, n, gap + 1, upstream), dx(rows, n, gap);
  std::vector<float> mean(static_cast<size_t>(rows)), rstd(mean), all;
  std::vector<float> dgamma = test::random_values<float>(n, 7), dbeta = test::random_values<float>(n, 8);
  layer_norm<float>(context, x.in(), gamma, beta, 1e-5, y.view, mean, rstd);
  test::append(all, y.view);
  layer_norm_backward<float>(context, dy.in(), x.in(), gamma, mean, rstd, in_place ? dy.view : dx.view, dgamma, dbeta);
  test::append(all, in_place ? dy.view : dx.view);
  layer_norm<float>(context, x.in(), gamma, beta, 1e-5, x.view, {}, {});
  test::append(all, x.view);
  for (const auto* each : {&mean, &rstd, &dgamma, &dbeta}) test::append(all, *each);
  return all;
}

// With scratch the sums over rows go along with dx, without it they are taken before: the same bits.
TEST(LayerNorm, SameBitsOnEveryCpuLevelThreadCountAndWithScratch) {
  for (const int64_t n : {1, 7, 65, 130, 1000, 4097, 9765}) {
    const int64_t rows = n > 130 ? 3 : 1030;
    const auto values = test::random_values<float>(rows * n, 1, 2), upstream = test::random_values<float>(rows * n, 2);
    for (const ScratchNeed need : {ScratchNeed(), norm_backward_scratch(7, rows, n)}) {
      const std::string what = std::to_string(n) + (need.shared > 0 ? " with scratch" : "");
      const bool in_place = n % 2 == 0;
      test::expect_same_bits([&](Context& c) { return run_layer_norm(c, rows, n, n % 3, values, upstream, in_place); },
                             "layer_norm " + what, need);
      test::expect_same_bits([&](Context& c) { return all_norms(c, rows, n, n % 3, values, upstream, true, in_place); },
                             "rms_norm " + what, need);
    }
  }
  const auto values = test::hostile_values(40 * 257, 3), upstream = test::hostile_values(40 * 257, 4);
  test::expect_same_bits([&](Context& c) { return run_layer_norm(c, 40, 257, 3, values, upstream, false); }, "hostile");
  test::TestContext plain(1), fused(1);
  fused.context.reserve(norm_backward_scratch(1, 1030, 70));
  const auto many = test::random_values<float>(1030 * 70, 3), up = test::random_values<float>(1030 * 70, 4);
  EXPECT_EQ(run_layer_norm(plain.context, 1030, 70, 0, many, up, false),
            run_layer_norm(fused.context, 1030, 70, 0, many, up, false));
  EXPECT_EQ(all_norms(plain.context, 1030, 70, 0, many, up, true, false),
            all_norms(fused.context, 1030, 70, 0, many, up, true, false));
}

TEST(LayerNorm, GradientMatchesDifferencesInDouble) {
  test::TestContext t;
  const int64_t rows = 3, n = 67;
  std::vector<double> x = test::random_values<double>(rows * n, 1, 2), gamma = test::random_values<double>(n, 2);
  std::vector<double> beta = test::random_values<double>(n, 4);
  const auto dy = test::random_values<double>(rows * n, 3);
  std::vector<double> y(x.size()), mean(rows), rstd(rows), dx(x.size()), dgamma(gamma.size()), dbeta(gamma.size());
  const View<const double, 2> xv(x.data(), rows, n), dyv(dy.data(), rows, n);
  const auto objective = [&] {
    layer_norm<double>(t.context, xv, gamma, beta, 1e-5, View<double, 2>(y.data(), rows, n), mean, rstd);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += dy[i] * y[i];
    return sum;
  };
  objective();
  layer_norm_backward<double>(t.context, dyv, xv, gamma, mean, rstd, View<double, 2>(dx.data(), rows, n), dgamma,
                              dbeta);
  test::expect_gradient(x, dx, objective, "dx");
  test::expect_gradient(gamma, dgamma, objective, "dgamma");
  test::expect_gradient(beta, dbeta, objective, "dbeta");
}

// Offsets far above the spread, constant rows, NaN: two passes about the rounded mean lose nothing that x still has.
TEST(LayerNorm, HugeOffsetsConstantsAndNan) {
  test::TestContext t;
  const int64_t n = 1000;
  const std::vector<float> one(static_cast<size_t>(n), 1.0f), zero(static_cast<size_t>(n), 0.0f);
  Matrix<float> x(4, n), y(4, n);
  for (int64_t j = 0; j < n; ++j) {
    x.view(0, j) = 1e6f + static_cast<float>(j % 8);  // exact in f32
    x.view(1, j) = 0.1f;
    x.view(2, j) = j == 77 ? NAN : 1.0f;
    x.view(3, j) = static_cast<float>(j % 8);
  }
  layer_norm<float>(t.context, x.in(), one, zero, 0, y.view, {}, {});
  for (int64_t j = 0; j < n; ++j) {
    EXPECT_NEAR(y.view(0, j), (static_cast<double>(j % 8) - 3.5) / std::sqrt(5.25), 1e-6);
    EXPECT_EQ(std::isnan(y.view(2, j)), true);
    EXPECT_NEAR(y.view(3, j), y.view(0, j), 1e-6);
  }
  layer_norm<float>(t.context, x.in(), one, one, 1e-5, y.view, {}, {});
  for (int64_t j = 0; j < n; ++j) EXPECT_NEAR(y.view(1, j), 1, 1e-6);
}

// Drawn or given, the mask is prng_dropout_mask's; the result is the composition of layer_norm, the mask and the sum.
TEST(LayerNormDropout, IsTheCompositionOfItsParts) {
  for (const int64_t n : {1, 17, 1000, 4100, 20000}) {
    const int64_t rows = n > 4000 ? 3 : 41;
    const auto values = test::random_values<float>(rows * n, 1, 2), more = test::random_values<float>(rows * n, 2);
    const auto gamma = test::random_values<float>(n, 5), beta = test::random_values<float>(n, 6);
    Matrix<float> x(rows, n, 1, values), residual(rows, n, 2, more), y(rows, n), normed(rows, n);
    std::vector<uint8_t> mask(values.size());
    test::TestContext t;
    prng_dropout_mask(t.context, 5, 9, 0, 0.75, mask);
    layer_norm<float>(t.context, x.in(), gamma, beta, 1e-5, normed.view, {}, {});
    DropoutMask drawn, given;
    drawn.seed = 5, drawn.stream = 9, drawn.keep_prob = given.keep_prob = 0.75;
    given.given = View<const uint8_t, 2>(mask.data(), rows, n);
    test::expect_same_bits(
        [&](Context& context) {
          context.reserve(layernorm_dropout_scratch(n));
          std::vector<float> all;
          for (const DropoutMask& each : {drawn, given}) {
            fused_layernorm_dropout_residual(context, x.in(), gamma, beta, 1e-5, each, residual.in(), y.view);
            for (int64_t i = 0; i < rows; ++i) {
              for (int64_t j = 0; j < n; ++j) {
                const float by = mask[static_cast<size_t>(i * n + j)] != 0 ? 4.0f / 3.0f : 0.0f;
                EXPECT_EQ(y.view(i, j), std::fma(normed.view(i, j), by, residual.view(i, j)));
              }
            }
            test::append(all, y.view);
          }
          Matrix<float> in_place(rows, n, 0, more);
          fused_layernorm_dropout_residual(context, x.in(), gamma, beta, 1e-5, drawn, in_place.in(), in_place.view);
          test::append(all, in_place.view);
          return all;
        },
        "layernorm_dropout " + std::to_string(n));
  }
}

struct Planes {
  int64_t n, c, l, groups;
};

// Batch and group norm against their formulas in f64, and the same bits everywhere.
TEST(ChannelNorms, MatchTheFormulaAndGiveTheSameBits) {
  for (const Planes& p :
       {Planes{2, 1, 1, 1}, Planes{9, 5, 1, 5}, Planes{600, 33, 1, 11}, Planes{5, 6, 7, 3}, Planes{3, 4, 63, 2},
        Planes{3, 4, 64, 2}, Planes{2, 3, 5000, 1}, Planes{1, 2100, 2, 21}, Planes{530, 70, 3, 10}}) {
    const auto n = p.n, c = p.c, l = p.l, groups = p.groups;
    const std::string what = fmt::format("[{}, {}, {}]", n, c, l);
    std::vector<float> x = test::random_values<float>(n * c * l, 1, 2);
    for (size_t i = 0; i < x.size(); ++i) x[i] += 10;
    const auto gamma = test::random_values<float>(c, 2), beta = test::random_values<float>(c, 3);
    const View<const float, 3> in(x.data(), n, c, l);
    std::vector<float> y(x.size());
    const View<float, 3> out(y.data(), n, c, l);
    const auto channel_of = [&](size_t i) { return static_cast<size_t>(static_cast<int64_t>(i) / l % c); };
    const auto check = [&](auto&& set_of, int64_t sets) {  // y against the moments of each set of elements
      std::vector<double> sum(static_cast<size_t>(sets)), squares(sum), count(sum);
      for (size_t i = 0; i < x.size(); ++i) sum[set_of(i)] += x[i], count[set_of(i)] += 1;
      for (size_t i = 0; i < x.size(); ++i) squares[set_of(i)] += std::pow(x[i] - sum[set_of(i)] / count[set_of(i)], 2);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t s = set_of(i);
        const double want =
            (x[i] - sum[s] / count[s]) / std::sqrt(squares[s] / count[s] + 1e-5) * gamma[channel_of(i)] +
            beta[channel_of(i)];
        ASSERT_NEAR(y[i], want, 5e-6 + 4e-6 * std::fabs(want)) << what << " at " << i;
      }
    };
    test::expect_same_bits(
        [&](Context& context) {
          context.reserve(batch_norm_scratch(c, l));
          std::vector<float> mean(static_cast<size_t>(c), 0.5f), var(mean), all;
          BatchNormArgs args;
          args.gamma = gamma, args.beta = beta, args.running_mean = mean, args.running_var = var;
          batch_norm(context, in, args, out);
          check(channel_of, c);
          test::append(all, y);
          args.training = false;
          batch_norm(context, in, args, out);
          for (const auto* each : {&y, &mean, &var}) test::append(all, *each);
          group_norm(context, in, gamma, beta, groups, 1e-5, out);
          check([&](size_t i) { return static_cast<size_t>(static_cast<int64_t>(i) / (c / groups * l)); }, n * groups);
          test::append(all, y);
          return all;
        },
        what);
  }
}

TEST(ChannelNorms, WrongShapesAreErrors) {
  const auto call_of = [](std::vector<int64_t> x, int64_t channels) {
    KernelCall call;
    call.add_input("x", DType::kF32, std::move(x));
    for (const char* name : {"gamma", "beta", "running_mean", "running_var"}) {
      call.add_input(name, DType::kF32, {channels});
    }
    return call;
  };
  const auto fails = [](const char* name, KernelCall call) {
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name;
  };
  for (const char* name : {"layer_norm", "rms_norm"}) {
    fails(name, call_of({3, 4}, 3));
    fails(name, call_of({12}, 12));
  }
  fails("batch_norm", call_of({1, 4, 1}, 4));
  fails("batch_norm", call_of({2, 4, 1}, 1));
  KernelCall call = call_of({2, 4, 1}, 4);
  call.set_parameter("groups", "3");
  EXPECT_THROW(find_kernel("group_norm")->prepare(call), Error);
  call.set_parameter("groups", "0");
  EXPECT_THROW(find_kernel("group_norm")->prepare(call), Error);
}

}  // namespace
}  // namespace graft
