#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Reductions of a vector of f32 to a number. Order (every variant and any number of threads gives the same bits): blocks of 4,096 elements,
// in each 64 lanes and a tree (reduce_ref_inl.h) in f32; the blocks' values join in f64, ascending, and the result rounds once. NaN anywhere in
// x makes a sum, minimum, maximum or moment NaN. Empty: sums 0, means and moments NaN; min, max and arg-reductions need an element.
// Scratch: reduce_scratch(N). Source: spec/kernels.md, sections 1 and 11.
ScratchNeed reduce_scratch(int64_t n) noexcept;

float reduce_sum(Context& context, std::span<const float> x) noexcept;   // sum of x; error 2e-6 of sum |x|
float reduce_mean(Context& context, std::span<const float> x) noexcept;  // sum of x / N
float reduce_min(Context& context, std::span<const float> x) noexcept;   // exact
float reduce_max(Context& context, std::span<const float> x) noexcept;   // exact
float reduce_l2(Context& context, std::span<const float> x) noexcept;    // sqrt(sum of x^2), r 2e-6
// sum of (x - mean)^2 / (N - ddof), r 1e-5; N <= ddof: NaN. Each block about its own mean, blocks merged by Chan's rule.
float reduce_var(Context& context, std::span<const float> x, int64_t ddof) noexcept;
float reduce_stddev(Context& context, std::span<const float> x, int64_t ddof) noexcept;  // sqrt(reduce_var)
struct ArgValue {
  float value;
  int32_t index;  // the lowest of equal values; the first NaN wins
};
ArgValue reduce_argmax(Context& context, std::span<const float> x) noexcept;
ArgValue reduce_argmin(Context& context, std::span<const float> x) noexcept;
// reduce_mean, reduce_var with ddof 0, reduce_argmin and reduce_argmax in one pass over x, each with the same bits; x is not empty.
struct Moments {
  float mean, variance;
  ArgValue min, max;
};
ScratchNeed reduce_moments_scratch(int64_t n) noexcept;
Moments reduce_moments(Context& context, std::span<const float> x) noexcept;
// counts[k] = number of x with floor((x - low) bins / (high - low)) = k; x = high is in the last bin; NaN and what lies outside is
// dropped. Scratch: histogram_scratch(bins).
ScratchNeed histogram_scratch(int64_t bins) noexcept;
void reduce_histogram(Context& context, std::span<const float> x, float low, float high,
                      std::span<uint32_t> counts) noexcept;

float map_reduce_square_sum(Context& context, std::span<const float> x) noexcept;  // sum of x^2, r 2e-6
float map_reduce_abs_sum(Context& context, std::span<const float> x) noexcept;     // sum of |x|, r 2e-6
// Sum of the x whose mask is not 0; a masked NaN or infinity does not show.
float map_reduce_masked_sum(Context& context, std::span<const float> x, std::span<const uint8_t> mask) noexcept;
uint32_t map_reduce_threshold_count(Context& context, std::span<const float> x, float threshold) noexcept;  // x > t

}  // namespace graft
