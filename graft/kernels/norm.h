#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// RMSNorm over the last dimension (arXiv:1910.07467; torch.nn.functional.rms_norm).
//   rrms[i] = 1 / sqrt(mean_j(x[i,j]^2) + eps);  y[i,j] = (x[i,j] * rrms[i]) * weight[j]
// x, y: [rows, hidden]. weight: [hidden]. rrms: [rows], kept for the backward (may be empty).
// Sums: 64 lanes (j mod 64) of fused multiply-adds, tree +32 … +1, blocks of 4,096 (design.md, point 8). y may be x. r 4e-6 a 1e-7.
enum class Output : uint8_t {
  kReadNext,  // stays in the cache as far as it fits
  kLeaves,    // large ones are stored past the cache
};
template <typename T>
void rms_norm(Context& context, View<const T, 2> x, std::span<const T> weight, double eps, View<T, 2> y,
              std::span<T> rrms, Output output = Output::kReadNext) noexcept;

// g = dy * weight;  dx = fma(rrms, fma(-x, rrms^2 * mean_j(g * x), g), residual), the outer a product without residual;
//   dweight += sum_i(dy * (x * rrms))
// dx is written (may be dy or residual); residual (the gradient that bypasses the norm) may be null. dweight may be empty;
// its rows are summed ascending by fused multiply-adds from +0 in blocks of 512: the same bits on any thread count.
// Scratch: norm_backward_scratch; without it x and dy are read twice, for the same bits.
template <typename T>
void rms_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> weight,
                       std::span<const T> rrms, View<const T, 2> residual, View<T, 2> dx,
                       std::span<T> dweight) noexcept;
ScratchNeed norm_backward_scratch(int num_threads, int64_t rows, int64_t hidden) noexcept;  // for f32

// LayerNorm over the last dimension (arXiv:1607.06450; torch.nn.functional.layer_norm).
//   y = (x - mean) rstd gamma + beta,  rstd = 1 / sqrt(mean_j (x - mean)^2 + eps)
// x, y: [rows, hidden]; gamma, beta: [hidden]; mean, rstd: [rows], kept for the backward (may be empty). y may be x.
// Two passes over a row in cache, for any offset: c = sum x / n rounded; d = sum (x - c) / n; var = sum (x - c)^2 / n - d^2;
// y = fma(fma(x - c, rstd, -d rstd), gamma, beta). Sums as in rms_norm. r 4e-6 a 4e-6.
template <typename T>
void layer_norm(Context& context, View<const T, 2> x, std::span<const T> gamma, std::span<const T> beta, double eps,
                View<T, 2> y, std::span<T> mean, std::span<T> rstd) noexcept;

// g = dy gamma;  xhat = (x - mean) rstd;  dx = rstd ((g - mean_j g) - xhat mean_j(g xhat));
//   dgamma += sum_i dy xhat;  dbeta += sum_i dy
// dx is written (may be dy). dgamma and dbeta may both be empty; their rows are summed as dweight's above. Scratch: norm_backward_scratch.
template <typename T>
void layer_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> gamma,
                         std::span<const T> mean, std::span<const T> rstd, View<T, 2> dx, std::span<T> dgamma,
                         std::span<T> dbeta) noexcept;

// y = layer_norm(x) m + residual, m = 1 / keep_prob where the mask is not 0, else 0 (NaN and infinity of a row show there too). The mask
// [rows, hidden] is given, or where it is null drawn as prng_dropout_mask (prng.h) draws it: element (i, j) by word i hidden + j of the
// Philox stream. y may be x or residual. Scratch: layernorm_dropout_scratch.
struct DropoutMask {
  View<const uint8_t, 2> given;
  uint64_t seed = 0, stream = 0;
  double keep_prob = 1;  // in (0, 1]; rounded to f32
};
ScratchNeed layernorm_dropout_scratch(int64_t hidden) noexcept;
void fused_layernorm_dropout_residual(Context& context, View<const float, 2> x, std::span<const float> gamma,
                                      std::span<const float> beta, double eps, const DropoutMask& mask,
                                      View<const float, 2> residual, View<float, 2> y) noexcept;

// BatchNorm of x [N, C, L] per channel over N and L (arXiv:1502.03167; torch.nn.functional.batch_norm).
//   y = (x - mean) / sqrt(var + eps) gamma + beta
// Training: mean and biased var of the batch; running <- (1 - momentum) running + momentum batch, with the unbiased var. Else those of
// `running_mean` and `running_var`, which stay. All per channel: [C]. N L >= 2 in training. x, y contiguous; y may be x.
// Moments join by Chan's rule: runs of L < 64 as L columns of their own (8 rows at a time, 512 in f32, then f64), longer runs of at most
// 4,096 by lanes, then f64. y = fma(x - c, a, b) with c the rounded mean, a = gamma / sqrt(var + eps), b = beta - (mean - c) a from f64.
// r 4e-6 a 5e-6. Scratch: batch_norm_scratch.
struct BatchNormArgs {
  std::span<const float> gamma, beta;
  double eps = 1e-5, momentum = 0.1;
  bool training = true;
  std::span<float> running_mean, running_var;
};
void batch_norm(Context& context, View<const float, 3> x, const BatchNormArgs& args, View<float, 3> y) noexcept;
ScratchNeed batch_norm_scratch(int64_t channels, int64_t length) noexcept;

// GroupNorm of x [N, C, L]: layer_norm over the C / groups channels times L of every group, gamma and beta [C] per channel
// (arXiv:1803.08494). `groups` divides C. x, y contiguous; y may be x. r 4e-6 a 5e-6.
void group_norm(Context& context, View<const float, 3> x, std::span<const float> gamma, std::span<const float> beta,
                int64_t groups, double eps, View<float, 3> y) noexcept;

}  // namespace graft
