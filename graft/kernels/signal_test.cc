#include "graft/kernels/signal.h"

#include <algorithm>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

std::unique_ptr<FftPlan> plan_of(int64_t length, bool real = false) {
  return length == 0 ? nullptr : std::make_unique<FftPlan>(length, real);
}

double padded(const std::vector<float>& x, int64_t i, Padding padding) {
  const auto n = static_cast<int64_t>(x.size());
  if (padding == Padding::kCircular) i = ((i % n) + n) % n;
  if (padding == Padding::kReflect) i = i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
  return i < 0 || i >= n ? 0.0 : static_cast<double>(x[static_cast<size_t>(i)]);
}

double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(sum);
}

TEST(Signal, Conv1dByItsDefinition) {
  test::TestContext t(2);
  for (const auto& shape : {std::pair{1, 1},
                            {3, 9},
                            {40, 32},
                            {777, 33},
                            {9000, 31},
                            {20001, 128},
                            {5000, 129},
                            {20001, 1000},
                            {300, 2000}}) {
    const int64_t n = shape.first, k = shape.second;
    for (const Padding padding : {Padding::kZero, Padding::kReflect, Padding::kCircular}) {
      if (padding == Padding::kReflect && k / 2 >= n) continue;
      const auto x = test::random_values<float>(n, 1), w = test::random_values<float>(k, 2);
      const auto plan = plan_of(filter_fft_length(n, k));
      t.context.reserve(filter_scratch(n, k, plan.get()));
      std::vector<float> y(x.size());
      conv1d(t.context, plan.get(), x, w, padding, y);
      for (int64_t i = 0; i < n; i += (i < 2 * k || i > n - 2 * k) && k < 200 ? 1 : 37) {
        double want = 0;
        for (int64_t j = 0; j < k; ++j)
          want += static_cast<double>(w[static_cast<size_t>(j)]) * padded(x, i - k / 2 + j, padding);
        ASSERT_NEAR(y[static_cast<size_t>(i)], want, 2e-6 * norm(w) * std::sqrt(static_cast<double>(k)))
            << n << " " << k << " at " << i;
      }
    }
  }
}

TEST(Signal, LinearConvolutions) {
  test::TestContext t(3);
  for (const auto& shape : {std::pair{1, 1}, {1, 300}, {7, 3}, {300, 65}, {1000, 256}, {50000, 500}, {2000, 3000}}) {
    const int64_t n = shape.first, k = shape.second;
    const auto x = test::random_values<float>(n, 3), h = test::random_values<float>(k, 4);
    const auto check = [&](const std::vector<float>& y) {
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); i += n * k < 100000 ? 1 : 97) {
        double want = 0;
        for (int64_t j = 0; j < k; ++j)
          want += static_cast<double>(h[static_cast<size_t>(j)]) * padded(x, i - j, Padding::kZero);
        ASSERT_NEAR(y[static_cast<size_t>(i)], want, 2e-6 * norm(x) * norm(h)) << n << " " << k << " at " << i;
      }
    };
    for (const int64_t outputs : {n + k - 1, n}) {
      const auto plan = plan_of(filter_fft_length(outputs, k));
      t.context.reserve(filter_scratch(outputs, k, plan.get()));
      std::vector<float> y(static_cast<size_t>(outputs)), causal(static_cast<size_t>(outputs));
      fft_conv1d(t.context, plan.get(), x, h, y);
      check(y);
      if (outputs != n) continue;
      fir_filter(t.context, plan.get(), x, h, causal);
      EXPECT_EQ(causal, y);
    }
  }
}

TEST(Signal, LengthsOfTransforms) {
  EXPECT_EQ(filter_fft_length(1000000, 32), 0);
  EXPECT_EQ(filter_fft_length(1000000, 128), 0);
  for (const int64_t taps : {129, 1000, 65536, 1 << 20}) {
    const int64_t m = filter_fft_length(1 << 22, taps);
    EXPECT_GE(m, 2 * taps);
    EXPECT_EQ(m & (m - 1), 0);
  }
  EXPECT_LE(filter_fft_length(1 << 22, 256), 1 << 14);
}

TEST(Signal, Correlations) {
  test::TestContext t(2);
  for (const auto& shape :
       {std::pair{1, 1}, {7, 3}, {3, 7}, {200, 150}, {600, 700}, {5000, 40}, {40, 5000}, {3000, 3000}}) {
    const int64_t n = shape.first, m = shape.second;
    for (const bool normalize : {false, true}) {
      auto a = test::random_values<float>(n, 5), b = test::random_values<float>(m, 6);
      for (float& v : a) v += 0.3f;
      const auto plan = plan_of(cross_correlation_fft_length(n, m), true);
      t.context.reserve(cross_correlation_scratch(n, m, plan.get()));
      std::vector<float> y(static_cast<size_t>(n + m - 1));
      cross_correlation(t.context, plan.get(), a, b, normalize, y);
      double mean_a = 0, mean_b = 0, aa = 0, bb = 0;
      if (normalize) {
        for (const float v : a) mean_a += static_cast<double>(v) / static_cast<double>(n);
        for (const float v : b) mean_b += static_cast<double>(v) / static_cast<double>(m);
      }
      for (const float v : a) aa += (v - mean_a) * (v - mean_a);
      for (const float v : b) bb += (v - mean_b) * (v - mean_b);
      if (normalize && (n == 1 || m == 1)) {
        EXPECT_TRUE(std::isnan(y[0]));  // 0 / 0
        continue;
      }
      const double scale = std::sqrt(aa * bb);
      for (int64_t k = 1 - m; k < n; k += n + m < 1000 ? 1 : 53) {
        double want = 0;
        for (int64_t i = std::max<int64_t>(0, -k); i < std::min<int64_t>(m, n - k); ++i) {
          want += (a[static_cast<size_t>(i + k)] - mean_a) * (b[static_cast<size_t>(i)] - mean_b);
        }
        ASSERT_NEAR(y[static_cast<size_t>(k + m - 1)], normalize ? want / scale : want, 2e-6 * (normalize ? 1 : scale))
            << n << " " << m << " lag " << k;
      }
      if (n != m) continue;
      const auto own = plan_of(autocorrelation_fft_length(n), true);
      t.context.reserve(autocorrelation_scratch(n, own.get()));
      std::vector<float> r(a.size());
      autocorrelation(t.context, own.get(), a, normalize, normalize, r);
      for (int64_t k = 0; k < n; k += n < 1000 ? 1 : 53) {
        double want = 0;
        for (int64_t i = 0; i + k < n; ++i)
          want += (a[static_cast<size_t>(i)] - mean_a) * (a[static_cast<size_t>(i + k)] - mean_a);
        ASSERT_NEAR(r[static_cast<size_t>(k)], normalize ? want / aa : want, 2e-6 * (normalize ? 1 : aa))
            << n << " " << k;
      }
    }
  }
}

TEST(Signal, Windows) {
  test::TestContext t(2);
  for (const int64_t n : {1, 2, 3, 16, 17, 1000, 100003}) {
    const std::vector<float> x(static_cast<size_t>(n), 1.0f);
    std::vector<float> y(x.size());
    for (const bool periodic : {false, true}) {
      const double d = static_cast<double>(periodic ? n : n - 1);
      const auto check = [&](Window window, double c0, double c1, double c2) {
        window_apply(t.context, x, window, periodic, y);
        for (int64_t i = 0; i < n; ++i) {
          const double a = 2 * M_PI * static_cast<double>(i) / d;
          const double want = n == 1 ? 1 : c0 + c1 * std::cos(a) + c2 * std::cos(2 * a);
          ASSERT_NEAR(y[static_cast<size_t>(i)], want, 5e-7) << n << " at " << i;
        }
      };
      check(Window::kHann, 0.5, -0.5, 0);
      check(Window::kHamming, 0.54, -0.46, 0);
      check(Window::kBlackman, 0.42, -0.5, 0.08);
      check(Window::kRect, 1, 0, 0);
    }
  }
}

TEST(Signal, StreamedWindowIsTheSame) {
  constexpr size_t kSize = (size_t{4} << 20) + 77;
  test::TestContext t(2);
  const std::vector<float> x(kSize, 1.0f);
  std::vector<float> y(kSize), z(kSize + 1);
  window_apply(t.context, x, Window::kHann, false, y);
  window_apply(t.context, x, Window::kHann, false, std::span(z).subspan(1));  // no vector is aligned here
  for (size_t i = 0; i < kSize; ++i) ASSERT_EQ(y[i], z[i + 1]);
  EXPECT_NEAR(y[kSize / 2], 1, 1e-7);
}

TEST(Signal, WrongCallsAreErrors) {
  const auto refused = [](std::string_view name, std::vector<std::pair<std::string, int64_t>> inputs,
                          std::string_view parameter = "", std::string_view text = "") {
    KernelCall call;
    for (const auto& [input, size] : inputs) call.add_input(input, DType::kF32, {size});
    if (!parameter.empty()) call.set_parameter(parameter, text);
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name;
  };
  refused("conv1d", {{"x", 5}, {"w", 0}});
  refused("conv1d", {{"x", 5}, {"w", 3}}, "pad", "mirror");
  refused("conv1d", {{"x", 4}, {"w", 8}}, "pad", "reflect");
  refused("fir_filter", {{"x", 5}});
  refused("fft_conv1d", {{"x", 0}, {"h", 3}});
  refused("fft_conv1d", {{"x", 4}, {"h", 3}}, "mode", "same");
  refused("autocorrelation", {{"x", 4}}, "demean", "1");
  refused("cross_correlation", {{"a", 4}, {"b", 0}});
  refused("window_apply", {{"x", 4}}, "window", "kaiser");
}

}  // namespace
}  // namespace graft
