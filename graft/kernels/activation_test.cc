#include "graft/kernels/activation.h"

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

// alias: 0 none; 1 y = gate, dgate = gate, dup = up; 2 y = up, dgate = dy, dup = gate; 3 dgate = up, dup = dy.
std::vector<float> all_activations(Context& context, int64_t rows, int64_t n, int64_t gap, const std::vector<float>& a,
                                   const std::vector<float>& b, const std::vector<float>& c, int alias) {
  std::vector<float> all;
  {
    Matrix<float> gate(rows, n, gap, a), up(rows, n, gap + 3, b), y(rows, n, gap + 1);
    const View<float, 2> out = alias == 1 ? gate.view : alias == 2 ? up.view : y.view;
    swiglu<float>(context, gate.in(), up.in(), out);
    test::append(all, out);
  }
  Matrix<float> gate(rows, n, gap, a), up(rows, n, gap + 3, b), dy(rows, n, gap, c), dgate(rows, n, gap),
      dup(rows, n, gap);
  const View<float, 2> dg = alias == 1 ? gate.view : alias == 2 ? dy.view : alias == 3 ? up.view : dgate.view;
  const View<float, 2> du = alias == 1 ? up.view : alias == 2 ? gate.view : alias == 3 ? dy.view : dup.view;
  swiglu_backward<float>(context, dy.in(), gate.in(), up.in(), dg, du);
  test::append(all, dg);
  test::append(all, du);
  return all;
}

TEST(Swiglu, SameBitsOnEveryCpuLevelAndThreadCount) {
  for (const int64_t n : test::edge_sizes()) {
    const int64_t rows = 5;
    const auto a = test::random_values<float>(rows * n, 1, 8), b = test::random_values<float>(rows * n, 2),
               c = test::random_values<float>(rows * n, 3);
    for (const int alias : {0, 1, 2, 3}) {
      test::expect_same_bits(
          [&](Context& context) { return all_activations(context, rows, n, alias == 0 ? 2 : 0, a, b, c, alias); },
          "swiglu " + std::to_string(n));
    }
  }
  const auto a = test::hostile_values(5000, 4), b = test::hostile_values(5000, 5), c = test::hostile_values(5000, 6);
  test::expect_same_bits([&](Context& context) { return all_activations(context, 50, 100, 0, a, b, c, 0); }, "hostile");
}

TEST(Swiglu, AliasingChangesNothing) {
  test::TestContext t;
  const auto a = test::random_values<float>(700, 1, 8), b = test::random_values<float>(700, 2),
             c = test::random_values<float>(700, 3);
  const auto want = all_activations(t.context, 7, 100, 0, a, b, c, 0);
  for (const int alias : {1, 2, 3}) {
    const auto got = all_activations(t.context, 7, 100, 0, a, b, c, alias);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << alias;
  }
}

TEST(Swiglu, MatchesTheFormulaAtAnyMagnitude) {
  test::TestContext t;
  const std::vector<float> gate = {0.0f,   -0.0f,   1.0f,  -1.0f,  20.0f,     -20.0f,
                                   100.0f, -100.0f, 1e30f, -1e30f, 0x1p-149f, NAN};
  const std::vector<float> up(gate.size(), 2.0f);
  std::vector<float> y(gate.size());
  const auto n = static_cast<int64_t>(gate.size());
  swiglu<float>(t.context, View<const float, 2>(gate.data(), 1, n), View<const float, 2>(up.data(), 1, n),
                View<float, 2>(y.data(), 1, n));
  for (size_t i = 0; i + 1 < gate.size(); ++i) {
    const double z = gate[i], want = 2 * z / (1 + std::exp(-z));
    EXPECT_NEAR(y[i], want, 3e-7 * std::fabs(want) + 1e-37)
        << z;  // exp within 1 ulp, two roundings; e^-100 / … may underflow to 0
  }
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(Swiglu, GradientMatchesDifferencesInDouble) {
  test::TestContext t;
  const int64_t rows = 3, n = 21;
  std::vector<double> gate = test::random_values<double>(rows * n, 1, 6),
                      up = test::random_values<double>(rows * n, 2, 2);
  const auto dy = test::random_values<double>(rows * n, 3);
  std::vector<double> y(gate.size()), dgate(gate.size()), dup(gate.size());
  const auto in = [&](const std::vector<double>& v) { return View<const double, 2>(v.data(), rows, n); };
  const auto out = [&](std::vector<double>& v) { return View<double, 2>(v.data(), rows, n); };
  const auto objective = [&] {
    swiglu<double>(t.context, in(gate), in(up), out(y));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += dy[i] * y[i];
    return sum;
  };
  swiglu_backward<double>(t.context, in(dy), in(gate), in(up), out(dgate), out(dup));
  test::expect_gradient(gate, dgate, objective, "dgate");
  test::expect_gradient(up, dup, objective, "dup");
}

}  // namespace
}  // namespace graft
