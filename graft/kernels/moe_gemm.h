#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// Products of all experts of a mixture at once, each with the rows that the router gave it (moe_route.h). Experts
// without rows cost nothing; nothing is padded or dropped. The arithmetic is gemm.h's, expert by expert: the same bits
// from every variant, on any number of threads, whatever rows other experts have.
struct ExpertRows {
  std::span<const int32_t> offsets;  // [experts + 1]
  std::span<const int32_t> rows;     // the assignment (token * top_k + slot) of each sorted row
  int64_t top_k = 1, tokens = 0;
  int64_t experts() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t count() const { return offsets.empty() ? 0 : offsets.back(); }
  int64_t token(int64_t row) const { return rows[static_cast<size_t>(row)] / top_k; }
};

// sum over k of x[row, k] W_e[o, k] for every output o, or, transposed, of x[row, o] W_e[o, k] for every column k.
template <typename T>
struct ExpertSource {
  View<const T, 2> x;             // unit column stride
  bool by_token = false;          // x holds a row per token, gathered here; else one per sorted row
  std::span<const Operand<T>> w;  // per expert; one with no extent has no part in its rows
  bool transposed = false;        // x W, not x W^T
  bool continues = false;         // its blocks are added to the sums of the source before (LoRA); else a sum of its own
  Compute compute = Compute::kF32;
};

// y[sorted row] = scale_e * (first source) + the other sources' sums, ascending; or, by_token, y[token] takes each sum by
// a fused multiply-add with the assignment's weight, experts ascending: y holds what it is added to.
template <typename T>
struct ExpertProduct {
  std::span<const ExpertSource<T>> sources;
  View<T, 2> y;
  bool by_token = false;
  std::span<const T> weights;  // by_token: [assignments]; empty: 1
  std::span<const T> scales;   // per expert, of a y by sorted rows with one source (LoRA's h); empty: 1
};
// Several products share the gathering of a common x and the threads' meeting.
template <typename T>
void expert_products(Context& context, const ExpertRows& rows, std::span<const ExpertProduct<T>> products) noexcept;

// dw_e[n, k] += sum over the expert's rows of a[row, n] b[row, k], rows in order of tokens in blocks of 512, each a chain of
// fused multiply-adds from +0. a and b by token or by sorted row.
template <typename T>
struct ExpertGradient {
  View<const T, 2> a, b;
  bool a_by_token = false, b_by_token = false;
  std::span<const View<T, 2>> dw;  // per expert, [n, k] within a's and b's columns; null: none
};
template <typename T>
void expert_gradients(Context& context, const ExpertRows& rows, std::span<const ExpertGradient<T>> gradients) noexcept;

// The weights' gradient and their part in the experts' own: dweights[assignment] = sum_j u[row, j] h[row, j] (64 lanes), then
// u[row] *= weight, h[row] *= weight. With o = sum_k w_k h_k Wd^T and u = do Wd that is do . (h_k Wd^T), without keeping each
// expert's output. dweights of assignments that no expert sees are 0.
template <typename T>
void expert_weight_gradients(Context& context, const ExpertRows& rows, std::span<const T> weights, View<T, 2> u,
                             View<T, 2> h, std::span<T> dweights) noexcept;

// Scratch for calls whose sources (of a product, or the two sides of a gradient) are at most `summed` wide together.
ScratchNeed expert_scratch(int num_threads, int64_t assignments, int64_t summed);

}  // namespace graft
