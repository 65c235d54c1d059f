#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"
#include "graft/kernels/fft.h"

namespace graft {

// Filters and correlations of real signals. Sums are chains of fused multiply-adds, ascending, where they are direct (any variant and thread
// count: the same bits); longer ones go through fft.h, in blocks (overlap-save) or at once. Which of both, and the length of the transform, is a
// rule of shape alone: the *_fft_length functions give the length of the plan to pass (built with `real` where said), or 0 where the sum is
// direct and the plan is null. Outputs do not overlap inputs. Source: spec/kernels.md, section 19.

enum class Padding : uint8_t {
  kZero,      // 0 outside
  kReflect,   // about the first and the last sample, which are not repeated: K / 2 < N
  kCircular,  // periodic
};
// y[i] = sum_k w[k] x[i - K/2 + k] (K/2 rounds down), K >= 1, y of N samples. r 1e-6, a 2e-6 max |x| sum |w|.
int64_t filter_fft_length(int64_t n, int64_t taps) noexcept;  // n: outputs
ScratchNeed filter_scratch(int64_t n, int64_t taps, const FftPlan* plan) noexcept;
void conv1d(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> w, Padding padding,
            std::span<float> y) noexcept;

// Causal: y[n] = sum_k h[k] x[n - k], x before 0 is 0; y of N samples. As conv1d.
void fir_filter(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> h,
                std::span<float> y) noexcept;

// y[n] = sum_k h[k] x[n - k]: y of N + K - 1 samples is the whole linear convolution, fewer are its first (N: causal).
// a 2e-6 |x|_2 |h|_2.
void fft_conv1d(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> h,
                std::span<float> y) noexcept;

// r[k] = sum_i x[i] x[i + k], k < N, not circular; demean: of x less its mean; normalize: over r[0]. a 2e-6 r[0].
// The plan has `real` twiddles.
int64_t autocorrelation_fft_length(int64_t n) noexcept;
ScratchNeed autocorrelation_scratch(int64_t n, const FftPlan* plan) noexcept;
void autocorrelation(Context& context, const FftPlan* plan, std::span<const float> x, bool demean, bool normalize,
                     std::span<float> y) noexcept;

// c[k] = sum_t a[t + k] b[t], k = -(M - 1) ... N - 1: y of N + M - 1. normalize: of a and b less their means, over sqrt(sum a^2 sum b^2).
// a 2e-6 |a|_2 |b|_2. The plan has `real` twiddles.
int64_t cross_correlation_fft_length(int64_t n, int64_t m) noexcept;
ScratchNeed cross_correlation_scratch(int64_t n, int64_t m, const FftPlan* plan) noexcept;
void cross_correlation(Context& context, const FftPlan* plan, std::span<const float> a, std::span<const float> b,
                       bool normalize, std::span<float> y) noexcept;

enum class Window : uint8_t { kRect, kHann, kHamming, kBlackman };
// y[n] = x[n] w[n]; with c = cos(2 pi n / D), D = N - 1, or N where periodic: hann (1 - c) / 2, hamming 0.54 - 0.46 c, blackman 0.42 - 0.5 c +
// 0.08 cos(4 pi n / D), rect 1; N = 1 gives x. All are polynomials of sin(pi n / D)^2, the angle reduced in integers. a 5e-7 max |x|.
// y may be x.
void window_apply(Context& context, std::span<const float> x, Window window, bool periodic,
                  std::span<float> y) noexcept;

}  // namespace graft
