#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// The router of a mixture of experts (arXiv:2101.03961, arXiv:2401.04088), from its logits z [tokens, experts]:
//   p = softmax(z); the top_k largest p of a token are chosen (of equals the lowest index), by falling p;
//   w = p / sum of the chosen p (renormalize), or p.
// A row that holds +infinity shares all of p among those entries; a row of -infinity alone is uniform. Softmax: the
// order of sums of loss.h; the sum of the chosen ascends from the largest.
//
// Then the assignments (token * top_k + slot) are sorted by expert, stably: those of expert e are
// rows[offsets[e]] … rows[offsets[e + 1] - 1], tokens ascending. With a capacity an expert keeps its first `capacity`
// tokens; the others' weights stay as they are, and no expert sees them.
//
// statistics: mean over tokens of p[:, e] (tokens ascending in blocks of 512), per expert; mean of lse^2, lse = log sum exp z of
// a token; share of the assignments dropped for the capacity; share of the assignments that chose e, per expert. The last
// three in f64.
template <typename T>
struct RouteArgs {
  View<const T, 2> logits;
  int64_t top_k = 1;
  bool renormalize = true;
  int64_t capacity = 0;        // tokens an expert takes; 0: any number
  View<T, 2> probabilities;    // [tokens, experts], written
  View<T, 2> weights;          // [tokens, top_k], written; contiguous
  View<int32_t, 2> experts;    // [tokens, top_k], written; contiguous
  std::span<T> lse;            // [tokens], written
  std::span<int32_t> offsets;  // [experts + 1], written
  std::span<int32_t> rows;     // [tokens * top_k], the first offsets[experts] written
  std::span<T> statistics;     // [2 experts + 2], written
};
template <typename T>
void route(Context& context, const RouteArgs<T>& args) noexcept;

// With dw [tokens, top_k] the gradient of the weights and ds that of the statistics (either may be empty; the shares have none):
//   dp_e = ds_e / tokens (all e) + for the chosen (dw_k - sum_j w_j dw_j) / s, s the sum of the chosen p (renormalize), or dw_k;
//   dz_e = p_e (dp_e - sum_j p_j dp_j) + (2 / tokens) ds[experts] lse p_e.
// The choice itself is piecewise constant and has no gradient. Sums ascend.
template <typename T>
struct RouteBackwardArgs {
  View<const T, 2> probabilities, weights;
  View<const int32_t, 2> experts;
  std::span<const T> lse;
  bool renormalize = true;
  View<const T, 2> dweights;
  std::span<const T> dstatistics;
  View<T, 2> dlogits;  // [tokens, experts], written
};
template <typename T>
void route_backward(Context& context, const RouteBackwardArgs<T>& args) noexcept;

// y[i] = x[i] * sigmoid(z[i]) (+ residual[i], one fused multiply-add): a gate for each row. residual may be null or y.
template <typename T>
void row_gate(Context& context, View<const T, 2> x, std::span<const T> z, View<const T, 2> residual,
              View<T, 2> y) noexcept;
// dx = dy * s, dz = s (1 - s) sum_j dy x (64 lanes), s = sigmoid(z). dx may be dy.
template <typename T>
void row_gate_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> z, View<T, 2> dx,
                       std::span<T> dz) noexcept;

}  // namespace graft
