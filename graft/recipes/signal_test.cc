#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/recipes/recipes.h"
#include "graft/recipes/test_support.h"

namespace graft {
namespace {

using test::Call;
using test::random;
using test::Values;

Values cosine(int64_t n, int64_t period) {
  Values x;
  for (int64_t i = 0; i < n; ++i)
    x.push_back(static_cast<float>(std::cos(2 * M_PI * static_cast<double>(i % period) / static_cast<double>(period))));
  return x;
}

TEST(Recipes, SpectraAreTheirKernels) {
  test::TestContext t(2);
  const Values x = random(1000, 1);
  const auto spectrum = [&](const Values& samples) { return Call(t.context, "fft_real").in("x", samples).out("y"); };
  SpectrumOptions options;
  options.window = Window::kHamming;
  Values w = Call(t.context, "window_apply").in("x", x).set("window", "hamming").out("y");
  EXPECT_EQ(spectral_analysis(t.context, x, options),
            Call(t.context, "spectral_power").in("x", spectrum(w), {501, 2}).out("y"));
  options.rate = 100, options.length = 2048;
  const Values ones = Call(t.context, "window_apply").in("x", Values(1000, 1.0f)).set("window", "hamming").out("y");
  const double sum = static_cast<double>(Call(t.context, "map_reduce_square_sum").in("x", ones).out("y")[0]);
  w.resize(2048);
  EXPECT_EQ(spectral_analysis(t.context, x, options), Call(t.context, "spectral_power")
                                                          .in("x", spectrum(w), {1025, 2})
                                                          .set("factor", fmt::format("{}", 1 / (100 * sum)))
                                                          .set("one_sided", "true")
                                                          .out("y"));
  // The density of a cosine has its power, a half, in its line: |X|^2 is N^2 / 4.
  options = {Window::kRect, false, 64, 0};
  const Values line = spectral_analysis(t.context, cosine(256, 8), options);
  for (size_t k = 0; k < line.size(); ++k) EXPECT_NEAR(line[k] * 64 / 256, k == 32 ? 0.5 : 0, 1e-6) << k;
  EXPECT_THROW(spectral_analysis(t.context, random(9, 1), options), Error);
  EXPECT_THROW(spectral_analysis(t.context, {}, options), Error);
  options.length = 8;
  EXPECT_THROW(spectral_analysis(t.context, random(10, 1), options), Error);
}

TEST(Recipes, FiltersAreTheirKernels) {
  test::TestContext t(2);
  constexpr int64_t kN = 512;
  const Values x = random(kN, 2);
  Values response = random(kN + 2, 3);
  const FilteredSignal got = signal_filter(t.context, x, Window::kBlackman, response);
  const Values w = Call(t.context, "window_apply").in("x", x).set("window", "blackman").out("y");
  Values complex, turned, re, im;
  for (const float v : w) complex.push_back(v), complex.push_back(0);
  const Values bins = Call(t.context, "fft_radix2").in("x", complex, {kN, 2}).out("y");
  response[1] = response[kN + 1] = 0;  // bins 0 and N/2 count as real
  for (size_t k = 0; k < kN; ++k) {
    const size_t from = k <= kN / 2 ? k : kN - k;
    const float sign = k <= kN / 2 ? 1 : -1;
    re.insert(re.end(), 2, response[2 * from]);
    im.insert(im.end(), 2, sign * response[2 * from + 1]);
    turned.push_back(-bins[2 * k + 1]), turned.push_back(bins[2 * k]);
  }
  const Values straight = Call(t.context, "map_mul").in("a", bins).in("b", re).out("y"),
               across = Call(t.context, "map_mul").in("a", turned).in("b", im).out("y"),
               product = Call(t.context, "map_add").in("a", straight).in("b", across).out("y"),
               back = Call(t.context, "ifft").in("x", product, {kN, 2}).out("y");
  double size = 0, imaginary = 0;
  for (size_t i = 0; i < kN; ++i) {
    EXPECT_EQ(got.signal[i], back[2 * i]) << i;
    size = std::max(size, static_cast<double>(std::fabs(back[2 * i])));
    imaginary = std::max(imaginary, static_cast<double>(std::fabs(back[2 * i + 1])));
  }
  EXPECT_LT(imaginary, 1e-6 * size);  // so the response was mirrored as it must be
  EXPECT_EQ(got.power, Call(t.context, "spectral_power")
                           .in("x", Values(product.begin(), product.begin() + kN + 2), {kN / 2 + 1, 2})
                           .out("y"));
  // A response of -i at all frequencies turns a cosine by a quarter of its period.
  Values quarter;
  for (int64_t k = 0; k <= kN / 2; ++k) quarter.push_back(0), quarter.push_back(-1);
  const Values c = cosine(kN, 16), s = signal_filter(t.context, c, Window::kRect, quarter).signal;
  for (size_t i = 0; i < kN; ++i) EXPECT_NEAR(s[i], c[(i + kN - 4) % kN], 1e-5) << i;
  EXPECT_EQ(signal_filter(t.context, Values{3}, Window::kHann, Values{2, 7}).signal, Values{6});
  EXPECT_THROW(signal_filter(t.context, random(500, 1), Window::kRect, Values(502)), Error);
  EXPECT_THROW(signal_filter(t.context, x, Window::kRect, Values(kN)), Error);
}

TEST(Recipes, DataAnalysisIsItsKernels) {
  test::TestContext t(2);
  constexpr int64_t kRows = 5000, kColumns = 4;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Values x = random(kRows * kColumns, 4);
  for (size_t i = 0; i < x.size(); i += 4) x[i + 2] = 3 - 2 * x[i];  // falls with column 0
  for (size_t i = 3; i < x.size(); i += 28) x[i] = kNan;
  x[1] = kNan;
  const DataAnalysis got = data_analysis(t.context, View<const float, 2>(x.data(), kRows, kColumns), 20);
  Values complete;
  for (size_t i = 0; i < x.size(); i += 4) {
    if (!std::isnan(x[i + 1]) && !std::isnan(x[i + 3]))
      complete.insert(complete.end(), x.begin() + static_cast<int64_t>(i), x.begin() + static_cast<int64_t>(i) + 4);
  }
  EXPECT_EQ(got.complete, static_cast<int64_t>(complete.size()) / 4);
  EXPECT_EQ(got.correlation,
            Call(t.context, "reduce_pearson_pairwise").in("x", complete, {got.complete, kColumns}).out("r"));
  EXPECT_NEAR(got.correlation[2], -1, 1e-6);
  ASSERT_EQ(got.columns.size(), 4u);
  for (size_t c = 0; c < 4; ++c) {
    const ColumnAnalysis& a = got.columns[c];
    Values column;
    for (size_t i = c; i < x.size(); i += 4) column.push_back(x[i]);
    const auto mask =
        Call(t.context, "map_compare").in("a", column).in("b", column).set("op", "eq").out<uint8_t>("mask");
    const Values kept = Call(t.context, "compact_mask").in("x", column).in("mask", mask).out("y");
    const auto number = [&](std::string_view kernel) { return Call(t.context, kernel).in("x", kept).out("y")[0]; };
    EXPECT_EQ(a.count, static_cast<int64_t>(kept.size()));
    EXPECT_EQ(a.mean, number("reduce_mean"));
    EXPECT_EQ(a.variance, number("reduce_var"));
    EXPECT_EQ(a.min, number("reduce_min"));
    EXPECT_EQ(a.max, number("reduce_max"));
    EXPECT_EQ(a.histogram, Call(t.context, "reduce_histogram")
                               .in("x", kept)
                               .set("lo", fmt::format("{}", a.min))
                               .set("hi", fmt::format("{}", a.max))
                               .set("bins", "20")
                               .out<uint32_t>("counts"));
    EXPECT_EQ(Values(a.percentiles.begin(), a.percentiles.end()),
              Call(t.context, "percentile_select").in("x", kept).in("p", Values{25, 50, 75, 90, 99}).out("y"));
  }
  EXPECT_LT(got.columns[3].count, kRows);
  const DataAnalysis none = data_analysis(t.context, View<const float, 2>(&kNan, 1, 1));
  EXPECT_TRUE(none.columns[0].count == 0 && std::isnan(none.columns[0].min) && std::isnan(none.columns[0].mean));
  EXPECT_TRUE(none.complete == 0 && std::isnan(none.correlation[0]) && none.columns[0].histogram.empty());
  const DataAnalysis empty = data_analysis(t.context, View<const float, 2>(nullptr, 0, 2));
  EXPECT_TRUE(empty.columns.size() == 2 && std::isnan(empty.columns[1].percentiles[0]));
  EXPECT_TRUE(std::isnan(empty.correlation[1]));
  EXPECT_THROW(data_analysis(t.context, View<const float, 2>(x.data(), kRows, kColumns), 0), Error);
}

}  // namespace
}  // namespace graft
