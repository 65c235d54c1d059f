#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// AdamW (arXiv:1711.05101; torch.optim.AdamW), one step t >= 1 over one tensor:
//   g' = grad_scale * g;  p <- p * (1 - lr * weight_decay);  m <- m + (1 - beta1)(g' - m) as beta1*m + (1-beta1)*g';  v <- beta2*v + (1-beta2)*g'^2
//   p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// In this order: p <- fma(p, decay, -(step * m) / fma(sqrt(v), 1 / sqrt(1 - beta2^t), eps)), step = lr / (1 - beta1^t), and m, v by one
// fused multiply-add each on the rounded product with g' or g'^2. |m| and v below 2^-100 become 0. Scalars are computed in f64 once and rounded to f32 once. Elementwise: bits do not depend on threads.
struct AdamWStep {
  double lr = 1e-4, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  int64_t t = 1;
  double grad_scale = 1;  // the clip factor
};
template <typename T>
void adamw(Context& context, const AdamWStep& step, std::span<const T> grad, std::span<T> param, std::span<T> m,
           std::span<T> v) noexcept;

// p <- p * (1 - lr * weight_decay) - lr * grad_scale * g.
template <typename T>
void sgd(Context& context, double lr, double weight_decay, double grad_scale, std::span<const T> grad,
         std::span<T> param) noexcept;

// sum of squares in f64: 64 lanes (i mod 64), tree, blocks of 4,096 summed the same way. NaN and infinity pass through.
template <typename T>
double sum_squares(Context& context, std::span<const T> x) noexcept;
ScratchNeed sum_squares_scratch(int64_t size);  // taken only by more than one thread

// Index of the first element that is NaN or infinite, or -1.
template <typename T>
int64_t first_non_finite(std::span<const T> x) noexcept;

}  // namespace graft
