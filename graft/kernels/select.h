#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Order statistics without a full sort: a sorted sample gives two values between which the wanted ranks lie almost surely, one sweep counts
// what is below and keeps what is between; where the sample misleads (heavy ties, contrived data) the digits of the keys are counted
// instead, which always succeeds. Results are exact, the same from every variant and any number of threads. N < 2^31.
// Source: spec/kernels.md, section 12.
ScratchNeed select_scratch(int64_t n) noexcept;

// The k largest of x, descending, and their indices; of equal values the lowest index first (-0 = +0); NaN counts as the largest.
// values and indices have k <= N elements. Scratch: select_scratch(N).
void topk_select(Context& context, std::span<const float> x, std::span<float> values,
                 std::span<int32_t> indices) noexcept;

// The middle of the sorted x, or the mean of its two middle ones; NaN anywhere or an empty x: NaN. A zero comes as +0. r 2.4e-7.
float median_select(Context& context, std::span<const float> x) noexcept;

// y[i] = the p[i]-th percentile, p in [0, 100], NaN for any other: with h = (N - 1) p / 100 linear between the order statistics floor(h) and floor(h) + 1.
// NaN anywhere or an empty x: NaN. r 1e-6, a 1e-6 of the root mean square.
void percentile_select(Context& context, std::span<const float> x, std::span<const float> p,
                       std::span<float> y) noexcept;

}  // namespace graft
