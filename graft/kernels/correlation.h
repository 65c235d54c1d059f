#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Correlation, covariance and weighted sums. Order (every variant and any number of threads gives the same bits): blocks of 4,096 elements,
// 64 lanes and a tree in f32 inside; blocks join in f64, ascending, and the result rounds once. Each block is centred on its own mean and
// merged by Chan's rule, so large offsets lose nothing. NaN or infinity in the data gives NaN.
// Scratch: correlation_scratch(N). Source: spec/kernels.md, section 2.
ScratchNeed correlation_scratch(int64_t n) noexcept;

// Pearson's r = Sxy / sqrt(Sxx Syy) of centred data, in [-1, 1]; N < 2 or a constant x or y: NaN. r 1e-5 a 2e-6.
float reduce_correlation(Context& context, std::span<const float> x, std::span<const float> y) noexcept;
// sum of (x - mean x)(y - mean y) / (N - ddof); N <= ddof: NaN. r 1e-5, a 1e-5 of sqrt(Sxx Syy) / N.
float reduce_covariance(Context& context, std::span<const float> x, std::span<const float> y, int64_t ddof) noexcept;
// sum of w x; empty: 0. r 1e-6, a 2e-6 of sum |w x|.
float reduce_weighted_sum(Context& context, std::span<const float> x, std::span<const float> w) noexcept;
// sum of w x / sum of w; NaN where the weights sum to 0. They may be negative.
float reduce_weighted_mean(Context& context, std::span<const float> x, std::span<const float> w) noexcept;

// Features in columns, x[R, C] -> y[C, C], symmetric. Blocks of 256 rows centred on their own column means; inside a block each product is
// an ascending chain of fused multiply-adds over the rows; blocks merge in f64, ascending. Scratch: covariance_scratch(R, C).
ScratchNeed covariance_scratch(int64_t rows, int64_t columns) noexcept;
// y[a, b] = sum of (x[., a] - mean a)(x[., b] - mean b) / (R - ddof); R <= ddof: NaN. r 1e-5, a 1e-5 of the largest variance.
void reduce_covariance_matrix(Context& context, View<const float, 2> x, int64_t ddof, View<float, 2> y) noexcept;
// The same over the standard deviations of a and b: in [-1, 1], exactly 1 on the diagonal; a constant column gives a row and column of NaN.
void reduce_pearson_pairwise(Context& context, View<const float, 2> x, View<float, 2> y) noexcept;

}  // namespace graft
