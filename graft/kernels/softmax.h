#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/loss_value.h"

namespace graft {

// Softmax along the rows of x [R, C], and the cross-entropy that rests on it. m = max_j x[i,j], S = sum_j e^(x[i,j] - m).
// Order (the same bits from every variant and any number of threads): blocks of 4,096 elements; the running maximum takes in the block's,
// the running sum is rescaled by e^(old - new), the block's sum (64 lanes and a tree) is added. Training's loss (loss.h) folds the same
// sums. -infinity counts for nothing; a row of nothing else, or with +infinity or NaN, is NaN throughout. Columns lie next to each other,
// rows at any distance; y may be x. No scratch. Source: spec/kernels.md, sections 13, 16 and 23.

// y = e^(x - m) / S, as e^(x - m) times the rounded 1 / S; r 4e-6.
void softmax_stable(Context& context, View<const float, 2> x, View<float, 2> y) noexcept;
// The same y, and m and S of every row [R] (S is NaN where m is not finite).
void softmax_online(Context& context, View<const float, 2> x, View<float, 2> y, std::span<float> row_max,
                    std::span<float> row_sum) noexcept;
// y = (x - m) - ln S; a 2e-6 + 1.2e-7 max |x|.
void log_softmax(Context& context, View<const float, 2> x, View<float, 2> y) noexcept;
void log_softmax(std::span<const float> x, std::span<float> y) noexcept;  // of one row, on this thread

// per_row[i] = w[t] ((m - x[i,t]) + ln S) with t = targets[i], w = 1 where `weight` [C] is empty; 0 where t is ignore_index.
// mean = sum / sum of w[t] over the rows that count, NaN if none does. targets: ignore_index or in [0, C).
LossValue loss_cross_entropy(Context& context, View<const float, 2> logits, std::span<const int32_t> targets,
                             std::span<const float> weight, int32_t ignore_index, std::span<float> per_row) noexcept;

// loss[i] as above without weights; grad = grad_scale (softmax - onehot(t)), 0 in an ignored row. Logits are read once; grad may be logits.
void fused_softmax_cross_entropy(Context& context, View<const float, 2> logits, std::span<const int32_t> targets,
                                 int32_t ignore_index, double grad_scale, std::span<float> loss,
                                 View<float, 2> grad) noexcept;

}  // namespace graft
