#include "graft/kernels/fft.h"

#include <complex>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using Complexes = std::vector<std::complex<double>>;

Complexes widen(std::span<const float> x) {
  Complexes z(x.size() / 2);
  for (size_t i = 0; i < z.size(); ++i) z[i] = {x[2 * i], x[2 * i + 1]};
  return z;
}

// Bin k of the transform by its definition.
std::complex<double> bin(const Complexes& x, size_t k, double sign) {
  std::complex<double> sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum +=
        x[i] * std::polar(1.0, sign * 2 * M_PI * static_cast<double>(i * k % x.size()) / static_cast<double>(x.size()));
  }
  return sum;
}

std::vector<float> forward(Context& context, const std::vector<float>& x, bool inverse = false) {
  const FftPlan plan(static_cast<int64_t>(x.size() / 2));
  context.reserve(fft_scratch(plan));
  std::vector<float> y(x.size());
  inverse ? ifft(context, plan, x, y) : fft(context, plan, x, y);
  return y;
}

// 2^-22 of the root mean square: a fifteenth of the contract's 4e-6 is left unused at the largest.
void expect_bins(const std::vector<float>& x, const std::vector<float>& y, double sign, double scale) {
  const Complexes in = widen(x), out = widen(y);
  const size_t n = in.size(), step = n <= 600 ? 1 : n / 61;
  double energy = 0;
  for (const auto& v : in) energy += std::norm(v);
  const double rms = std::sqrt(energy) * scale;  // Parseval
  for (size_t k = 0; k < n; k += step) {
    const auto want = bin(in, k, sign) * scale;
    ASSERT_LE(std::abs(out[k] - want), 4e-6 * std::max(rms, 1e-30)) << "length " << n << ", bin " << k;
  }
}

TEST(Fft, EveryLengthAgreesWithTheDefinition) {
  test::TestContext t(2);
  std::vector<int64_t> lengths;
  for (int64_t n = 1; n <= 70; ++n) lengths.push_back(n);
  for (int64_t n = 128; n <= 1 << 15; n *= 2) lengths.push_back(n);
  for (const int64_t n : {100, 127, 243, 360, 1000, 1001, 4099}) lengths.push_back(n);
  for (const int64_t n : lengths) {
    const auto x = test::random_values<float>(2 * n, static_cast<uint64_t>(n));
    expect_bins(x, forward(t.context, x), -1, 1);
    expect_bins(x, forward(t.context, x, true), 1, 1.0 / static_cast<double>(n));
  }
}

TEST(Fft, InverseReturnsTheInput) {
  test::TestContext t(3);
  for (const int64_t n : {1, 2, 64, 255, 256, 512, 3000, 1 << 13, 1 << 18, 1 << 20}) {
    const auto x = test::random_values<float>(2 * n, 5);
    const auto back = forward(t.context, forward(t.context, x), true);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(back[i], x[i], 4e-6) << n;
  }
}

// A shift of the input turns the phase of every bin; an impulse has all bins 1.
TEST(Fft, ImpulseAndShift) {
  test::TestContext t(1);
  for (const int64_t n : {8, 64, 512, 2048, 1 << 16, 1 << 20}) {
    std::vector<float> x(static_cast<size_t>(2 * n));
    x[0] = 1;
    const auto flat = forward(t.context, x);
    for (const float v : flat) ASSERT_TRUE(v == 0 || v == 1) << n;
    x[0] = 0;
    x[2] = 1;
    const auto y = forward(t.context, x);
    for (int64_t k = 0; k < n; k += std::max<int64_t>(1, n / 300)) {
      const double angle = -2 * M_PI * static_cast<double>(k) / static_cast<double>(n);
      ASSERT_NEAR(y[static_cast<size_t>(2 * k)], std::cos(angle), 4e-7) << n;
      ASSERT_NEAR(y[static_cast<size_t>(2 * k + 1)], std::sin(angle), 4e-7) << n;
    }
  }
}

TEST(Fft, InPlaceIsTheSame) {
  test::TestContext t(2);
  for (const int64_t n : {4, 16, 128, 256, 1024, 1000, 8192}) {
    const auto x = test::random_values<float>(2 * n, 9);
    const auto want = forward(t.context, x);
    const FftPlan plan(n);
    auto y = x;
    fft(t.context, plan, y, y);
    EXPECT_EQ(y, want) << n;
  }
}

TEST(Fft, RealSignals) {
  test::TestContext t(2);
  for (const int64_t n : {2, 4, 6, 8, 34, 62, 256, 500, 1024, 4096, 1 << 17}) {
    const auto x = test::random_values<float>(n, 11);
    std::vector<float> z(static_cast<size_t>(2 * n)), y(static_cast<size_t>(n + 2)), back(x.size());
    for (size_t i = 0; i < x.size(); ++i) z[2 * i] = x[i];
    const auto want = forward(t.context, z);
    const FftPlan half(n / 2, true);
    t.context.reserve(fft_scratch(half));
    fft_real(t.context, half, x, y);
    const double tolerance = 4e-6 * std::sqrt(static_cast<double>(n));
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], want[i], tolerance) << n;
    EXPECT_EQ(y[1], 0);
    EXPECT_EQ(y.back(), 0);
    auto bins = y;
    ifft_real(t.context, half, bins, back);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(back[i], x[i], 4e-6) << n;
    auto place = x;
    place.resize(y.size());
    fft_real(t.context, half, std::span<const float>(place).first(x.size()), place);
    EXPECT_EQ(place, y);
  }
}

TEST(Fft, VariantsAgreeAtLengthsTheSuiteLeavesOut) {
  for (const int64_t n : {256, 512, 1 << 11, 1 << 12, 1 << 13, 1 << 15}) {
    const auto x = test::random_values<float>(2 * n, 3);
    test::expect_same_bits([&](Context& context) { return forward(context, x, n % 3 == 0); }, fmt::format("fft {}", n));
  }
}

TEST(Fft, SpectralPower) {
  test::TestContext t(2);
  const std::vector<float> x = {3, 4, 1, 0, 0, -2, 6, 8};
  std::vector<float> y(4);
  spectral_power(t.context, x, 1, false, y);
  EXPECT_EQ(y, (std::vector<float>{25, 1, 4, 100}));
  spectral_power(t.context, x, 0.5, true, y);
  EXPECT_EQ(y, (std::vector<float>{12.5, 1, 4, 50}));
  spectral_power(t.context, {}, 1, true, {});
}

TEST(Fft, WrongCallsAreErrors) {
  EXPECT_THROW(FftPlan(0), Error);
  EXPECT_THROW(FftPlan((int64_t{1} << 26) + 1), Error);
  const auto refused = [](std::string_view name, std::vector<int64_t> shape) {
    KernelCall call;
    call.add_input("x", DType::kF32, shape);
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name;
  };
  refused("fft_radix2", {12, 2});
  refused("fft_radix2", {0, 2});
  refused("fft_radix2", {8, 3});
  refused("fft_radix2", {16});
  refused("fft_radix4", {8, 2});
  refused("ifft", {0, 2});
  refused("fft_real", {7});
  refused("fft_real", {0});
  refused("fft_real", {8, 1});
}

}  // namespace
}  // namespace graft
