#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// AdamW (arXiv:1711.05101; torch.optim.AdamW), one step t >= 1 over one tensor:
//   g' = grad_scale * g;  p <- p * (1 - lr * weight_decay);  m <- m + (1 - beta1)(g' - m);  v <- beta2*v + (1-beta2)*g'^2
//   p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// In this order: p <- fma(p, decay, -(step * m) / fma(sqrt(v), 1 / sqrt(1 - beta2^t), eps)), step = lr / (1 - beta1^t); m by one
// fused multiply-add on the rounded difference, which loses less than beta1*m + (1-beta1)*g' where the two cancel; v by one on the rounded
// product with g'^2. |m| and v below 2^-100 become 0. Scalars are computed in f64 once and rounded to f32 once. Elementwise: bits do not depend on threads.
struct AdamWStep {
  double lr = 1e-4, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  int64_t t = 1;
  double grad_scale = 1;        // the clip factor
  bool bias_correction = true;  // off: m and v as they are, without the divisors by t
};
template <typename T>
void adamw(Context& context, const AdamWStep& step, std::span<const T> grad, std::span<T> param, std::span<T> m,
           std::span<T> v) noexcept;
// The same, and then grad is zero: each piece while it is in the cache, for steps that add to gradients.
template <typename T>
void adamw_and_clear(Context& context, const AdamWStep& step, std::span<T> grad, std::span<T> param, std::span<T> m,
                     std::span<T> v) noexcept;

// p <- p * (1 - lr * weight_decay) - lr * grad_scale * g.
template <typename T>
void sgd(Context& context, double lr, double weight_decay, double grad_scale, std::span<const T> grad,
         std::span<T> param) noexcept;

// sum of squares in f64: 64 lanes (i mod 64), tree, blocks of 4,096 summed the same way. NaN and infinity pass through.
template <typename T>
double sum_squares(Context& context, std::span<const T> x) noexcept;
ScratchNeed sum_squares_scratch(int64_t size);  // taken only by more than one thread

// The suite's names (spec/kernels.md, sections 17 and 23): the kernels above, as they stand. All work in place; bits do not depend on
// threads, NaN stays where it is. r 2e-7 a 2e-7 (sgd), r 4e-7 a 1e-8 (adam).
void opt_sgd(Context& context, double lr, std::span<const float> grad, std::span<float> param) noexcept;  // p - lr g
// v <- momentum v + g;  p <- p - lr v: a fused multiply-add each.
void opt_sgd_momentum(Context& context, double lr, double momentum, std::span<const float> grad, std::span<float> param,
                      std::span<float> velocity) noexcept;
void opt_adam(Context& context, AdamWStep step, std::span<const float> grad, std::span<float> param, std::span<float> m,
              std::span<float> v) noexcept;  // adamw with weight_decay 0, whatever `step` says
void opt_adamw(Context& context, const AdamWStep& step, std::span<const float> grad, std::span<float> param,
               std::span<float> m, std::span<float> v) noexcept;

// n = sqrt(sum of squares of all tensors together); where n > max_norm every g is multiplied by the rounded max_norm / n, else it is
// untouched (n = 0 and NaN too). Returns n, which may be infinite where its f32 is. r 3e-6. Scratch: sum_squares_scratch of the largest.
float grad_clip_norm(Context& context, std::span<const std::span<float>> grads, double max_norm) noexcept;
// The same for one tensor, written to `clipped`: grad itself or apart from it.
float grad_clip_norm(Context& context, std::span<const float> grad, double max_norm, std::span<float> clipped) noexcept;
// clipped = min(max(g, -max_value), max_value), NaN stays; `clipped` may be grad. Exact.
void grad_clip_value(Context& context, std::span<const float> grad, double max_value,
                     std::span<float> clipped) noexcept;

// AdamW on a clipped gradient in one pass (two for the norm): `clip` bounds every element or the norm. grad itself is not changed.
// Returns the norm, 0 for kValue. step.grad_scale is ignored. Scratch: sum_squares_scratch.
enum class ClipMode : uint8_t { kValue, kNorm };
float fused_adam_clip_update(Context& context, AdamWStep step, ClipMode mode, double clip, std::span<const float> grad,
                             std::span<float> param, std::span<float> m, std::span<float> v) noexcept;

// Index of the first element that is NaN or infinite, or -1.
template <typename T>
int64_t first_non_finite(std::span<const T> x) noexcept;

}  // namespace graft
