#pragma once

#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/weight.h"

namespace graft {

// Matrix products. T is float (dispatched to the best variant) or double (scalar reference, tests).
//
// Arithmetic contract, f32 (design.md, point 8): the summed dimension is cut at multiples of 512; inside a block each
// output is an ascending chain of fused multiply-adds from +0; block sums are added in ascending order. bf16 and f16
// weights are widened to f32 first, exactly. Then the scale, then LoRA terms (one more block each, or one per 512 of
// their rank, added one after the other; always f32 arithmetic), then bias, then residual.
// The same bits from every variant, on any number of threads, for any number of rows.
//
// Compute::kBF16: operands rounded to bf16 (nearest even), products summed by the CPU's bf16 dot product or AMX where
// it has them, else in f32; any number of threads and any number of rows give the same bits on one CPU.
enum class Compute { kF32, kBF16 };

// y[rows of the range] += h b^T: h [row_end - row_begin, rank] is already scaled, b [out, rank].
template <typename T>
struct LoraTerm {
  int64_t row_begin = 0, row_end = 0;
  View<const T, 2> h, b;
};

// The right-hand operand: a packed base weight, or a plain row-major matrix [out, in] (adapters, tests).
template <typename T>
struct Operand {
  const Weight* weight = nullptr;
  View<const T, 2> rows;  // used when weight is null; any strides
  int64_t out_features() const { return weight != nullptr ? weight->out_features() : rows.extent(0); }
  int64_t in_features() const { return weight != nullptr ? weight->in_features() : rows.extent(1); }
};

// One product of a group that shares x: y = x W^T + sum of terms + bias + residual.
template <typename T>
struct MatmulOutput {
  Operand<T> w;                        // [out, in]
  std::span<const LoraTerm<T>> terms;  // ranges may not overlap
  std::span<const T> bias;             // [out] or empty
  View<const T, 2> residual;           // [rows, out] or data() == nullptr; may be y
  T scale = 1;                         // y = scale * (x W^T) before everything else, where != 1 (LoRA's h = s * x A^T)
  View<T, 2> y;                        // [rows, out], written
};

// For every output o: y_o = x W_o^T …; x [rows, in] is read (and packed) once. x may have any row stride, unit column
// stride.
template <typename T>
void matmul_nt(Context& context, Compute compute, View<const T, 2> x,
               std::span<const MatmulOutput<T>> outputs) noexcept;

// dx[rows, in] = (accumulate ? dx : nothing) + sum over sources, ascending, of dy_i W_i (each folded as above over
// out_features).
template <typename T>
struct MatmulSource {
  View<const T, 2> dy;  // [rows, out]
  Operand<T> w;         // [out, in]
};
template <typename T>
void matmul_nn(Context& context, Compute compute, std::span<const MatmulSource<T>> sources, bool accumulate,
               View<T, 2> dx) noexcept;

// dw[n, k] = (accumulate ? dw : nothing) + scale * sum_t a[t, n] b[t, k]; t ascending in blocks of 512, each block a
// chain of fused multiply-adds from +0, scaled if scale != 1 and then added. f32 arithmetic always. a [rows, n], b
// [rows, k], dw row-major [n, k].
template <typename T>
void matmul_tn(Context& context, View<const T, 2> a, View<const T, 2> b, T scale, bool accumulate,
               View<T, 2> dw) noexcept;

// Scratch for products of at most `rows` rows with these extents, for nt, nn and tn alike (either extent may be summed).
// A context that holds less gets the same bits from the scalar reference, a hundred times slower; debug builds assert.
ScratchNeed matmul_scratch(int num_threads, int64_t rows, int64_t in_features, int64_t out_features);

}  // namespace graft
