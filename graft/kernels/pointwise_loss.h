#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"
#include "graft/kernels/loss_value.h"

namespace graft {

// Losses of a vector of predictions against one of targets, of one length N. mean = sum / N, NaN where N is 0. Order (the same bits from
// every variant and any number of threads): blocks of 4,096 elements, in each 64 lanes and a tree in f32; the blocks' sums join in f64,
// ascending, and round once. NaN in either shows. r 4e-6. Scratch: pointwise_loss_scratch(N). Source: spec/kernels.md, section 16.
ScratchNeed pointwise_loss_scratch(int64_t n) noexcept;

LossValue loss_mse(Context& context, std::span<const float> pred, std::span<const float> target) noexcept;  // (p - t)^2
LossValue loss_mae(Context& context, std::span<const float> pred, std::span<const float> target) noexcept;  // |p - t|
// With d = |p - t|: d^2 / 2 where d < delta, else delta (d - delta / 2); delta > 0. As c (d - c / 2), c = min(d, delta).
LossValue loss_huber(Context& context, std::span<const float> pred, std::span<const float> target,
                     double delta) noexcept;
// t (ln t - ln max(p, eps)) of probabilities, 0 where t <= 0; as t ln(t / max(p, eps)), the ratio within f32's range. mean is
// the sum / rows ("batchmean"). a 4e-6 sum |terms| besides.
LossValue loss_kl_div(Context& context, std::span<const float> pred, std::span<const float> target, int64_t rows,
                      double eps) noexcept;
// -(t ln p + (1 - t) ln(1 - p)), p clamped to [eps, 1 - 2^-23]; eps >= 2^-126. ln(1 - p) keeps its digits for small p. a 2e-7 besides.
LossValue loss_bce(Context& context, std::span<const float> pred, std::span<const float> target, double eps) noexcept;

}  // namespace graft
