#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Rows of a[R, C] against the same rows of b[R, C]; y[R]. Rows may lie at any distance. Every sum has the order of a row sum (64 lanes, a
// tree, blocks of 4,096): the same bits from every variant and any number of threads. NaN in a row makes its y NaN. C = 0: y = 0.
// Source: spec/kernels.md, section 8.

// y[r] = sum over c of a[r, c] b[r, c]; r 1e-6, a 2e-6 of sum |a b|.
void dot_batched(Context& context, View<const float, 2> a, View<const float, 2> b, std::span<float> y) noexcept;

// y[r] = a.b / (max(|a|, eps) max(|b|, eps)), |x| the Euclidean norm; a row of zeros gives 0. r 1e-6 a 2e-6 for norms whose squares are
// finite in f32. One pass with three sums.
void cosine_similarity(Context& context, View<const float, 2> a, View<const float, 2> b, double eps,
                       std::span<float> y) noexcept;

}  // namespace graft
