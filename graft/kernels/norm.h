#pragma once

#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// RMSNorm over the last dimension (arXiv:1910.07467; torch.nn.functional.rms_norm).
//   rrms[i] = 1 / sqrt(mean_j(x[i,j]^2) + eps);  y[i,j] = (x[i,j] * rrms[i]) * weight[j]
// x, y: [rows, hidden]. weight: [hidden]. rrms: [rows], kept for the backward (may be empty).
// Sums: 64 lanes (j mod 64) of fused multiply-adds, tree +32 … +1, blocks of 4,096 (design.md, point 8). y may be x.
template <typename T>
void rms_norm(Context& context, View<const T, 2> x, std::span<const T> weight, double eps, View<T, 2> y,
              std::span<T> rrms) noexcept;

// g = dy * weight;  dx = fma(rrms, fma(-x, rrms^2 * mean_j(g * x), g), residual), the outer a product without residual;
//   dweight += sum_i(dy * (x * rrms))
// dx is written (may be dy or residual); residual (the gradient that bypasses the norm) may be null. dweight may be empty;
// its rows are summed ascending by fused multiply-adds from +0 in blocks of 512: the same bits on any thread count.
template <typename T>
void rms_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> weight,
                       std::span<const T> rrms, View<const T, 2> residual, View<T, 2> dx,
                       std::span<T> dweight) noexcept;

}  // namespace graft
