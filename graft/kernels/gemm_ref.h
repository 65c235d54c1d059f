#pragma once

#include <span>

#include "graft/kernels/gemm.h"

namespace graft {

// The matrix products in plain loops: what the bits are. One task computes one tile of outputs. Compiled twice from
// gemm_ref_inl.h: gemm_ref.cc without the fused multiply-add instruction (the library's fma is exact too) and
// gemm_fma.cc with it.
template <typename T>
struct GemmRefTable {
  // Rows [row_begin, row_end) and outputs [out_begin, out_end) of y.
  void (*nt)(Compute compute, View<const T, 2> x, const MatmulOutput<T>& output, int64_t row_begin, int64_t row_end,
             int64_t out_begin, int64_t out_end) noexcept;
  // Rows [row_begin, row_end) and columns [column_begin, column_end), at most 64, of dx.
  void (*nn)(Compute compute, std::span<const MatmulSource<T>> sources, bool accumulate, View<T, 2> dx,
             int64_t row_begin, int64_t row_end, int64_t column_begin, int64_t column_end) noexcept;
  // Rows [row_begin, row_end) and columns [column_begin, column_end), at most 64, of dw.
  void (*tn)(View<const T, 2> a, View<const T, 2> b, T scale, bool accumulate, View<T, 2> dw, int64_t row_begin,
             int64_t row_end, int64_t column_begin, int64_t column_end) noexcept;
  // out[k] = W[row, column_begin + k], widened.
  void (*widen_row)(const Operand<T>& w, int64_t row, int64_t column_begin, int64_t n, T* out) noexcept;
  // v = W[row, :] + scaling * b_row A; written to `merged` where that is not null (w's row may lie there). Returns || v
  // ||_2.
  T(*dora_row)
  (const Operand<T>& w, int64_t row, View<const T, 2> a, const T* b_row, int64_t b_stride, T scaling,
   T* merged) noexcept;
};

template <typename T>
const GemmRefTable<T>& gemm_ref() noexcept;  // the build that this CPU runs

namespace ref {
extern const GemmRefTable<float> kGemmFloat;
extern const GemmRefTable<double> kGemmDouble;
}  // namespace ref
namespace fma {
extern const GemmRefTable<float> kGemmFloat;
extern const GemmRefTable<double> kGemmDouble;
}  // namespace fma

}  // namespace graft
