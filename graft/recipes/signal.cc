#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/kernels/fft.h"
#include "graft/kernels/map.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

constexpr int64_t kMostSamples = int64_t{1} << 26;  // what a plan may have

std::vector<float> windowed(Context& context, std::span<const float> x, Window window, bool periodic) {
  std::vector<float> y(x.begin(), x.end());
  if (window != Window::kRect) window_apply(context, y, window, periodic, y);
  return y;
}

}  // namespace

std::vector<float> spectral_analysis(Context& context, std::span<const float> x, const SpectrumOptions& options) {
  const auto n = static_cast<int64_t>(x.size());
  const int64_t length = options.length == 0 ? n : options.length;
  GRAFT_CHECK_HINT(length >= std::max<int64_t>(n, 2) && length % 2 == 0 && length <= kMostSamples,
                   "set the length to pad with zeros",
                   "a transform of {} for {} samples, expected an even length of at least as many, 2 to {}", length, n,
                   kMostSamples);
  GRAFT_CHECK(options.rate >= 0 && std::isfinite(options.rate), "a rate of {}, expected 0 or above", options.rate);
  double factor = 1;
  if (options.rate > 0) {
    GRAFT_CHECK(n > 0, "spectral_analysis: no samples");
    const std::vector<float> w =
        windowed(context, std::vector<float>(x.size(), 1.0f), options.window, options.periodic);
    context.reserve(reduce_scratch(n));
    factor = 1 / (options.rate * static_cast<double>(map_reduce_square_sum(context, w)));
  }
  std::vector<float> samples = windowed(context, x, options.window, options.periodic);
  samples.resize(static_cast<size_t>(length));
  const auto plan = cached_fft_plan(length / 2, true);
  context.reserve(fft_scratch(*plan));
  std::vector<float> bins(samples.size() + 2), power(samples.size() / 2 + 1);
  fft_real(context, *plan, samples, bins);
  spectral_power(context, bins, factor, options.rate > 0, power);
  return power;
}

FilteredSignal signal_filter(Context& context, std::span<const float> x, Window window,
                             std::span<const float> response) {
  const auto n = static_cast<int64_t>(x.size());
  GRAFT_CHECK(n >= 1 && n <= kMostSamples && (n & (n - 1)) == 0, "{} samples, expected a power of two up to {}", n,
              kMostSamples);
  const size_t bins = x.size() / 2 + 1;
  GRAFT_CHECK(response.size() == 2 * bins, "a response of {} numbers, expected {}: {} bins of two", response.size(),
              2 * bins, bins);
  const std::vector<float> samples = windowed(context, x, window, false);
  std::vector<float> bin(2 * x.size()), turned(bin.size()), re(bin.size()), im(bin.size());
  for (size_t i = 0; i < x.size(); ++i) bin[2 * i] = samples[i];
  const auto plan = cached_fft_plan(n);
  context.reserve(fft_scratch(*plan));
  fft_radix2(context, *plan, bin, bin);
  // X H = X re(H) + (i X) im(H), with the parts of H beside both parts of X.
  for (size_t k = 0; k < x.size(); ++k) {
    const size_t from = std::min(k, x.size() - k);
    const float part = k == 0 || 2 * k == x.size() ? 0.0f : response[2 * from + 1];
    re[2 * k] = re[2 * k + 1] = response[2 * from];
    im[2 * k] = im[2 * k + 1] = from == k ? part : -part;
    turned[2 * k] = -bin[2 * k + 1];
    turned[2 * k + 1] = bin[2 * k];
  }
  map_mul(context, bin, re, bin);
  map_mul(context, turned, im, turned);
  map_add(context, bin, turned, bin);
  ifft(context, *plan, bin, turned);
  FilteredSignal result;
  for (size_t i = 0; i < x.size(); ++i) result.signal.push_back(turned[2 * i]);
  result.power.resize(bins);
  spectral_power(context, std::span<const float>(bin).first(2 * bins), 1, false, result.power);
  return result;
}

}  // namespace graft
