#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Linear algebra in f32. Any number of threads and every variant give the same bits. Inputs overlap no output unless said so; rows
// are contiguous (unit stride of the last dimension), other strides are free. Source: spec/kernels.md, section 20.

// c[b] = a[b] b[b]: [B, M, K] x [B, K, N] -> [B, M, N]; K = 0 gives 0. Training's product (gemm.h): ascending chains of fused
// multiply-adds over blocks of 512 of K, blocks added ascending. Error 2e-6 of the largest sum of |terms|.
ScratchNeed matmul_batched_scratch(int64_t rows, int64_t summed, int64_t columns);
void matmul_batched(Context& context, View<const float, 3> a, View<const float, 3> b, View<float, 3> c) noexcept;

// y = A x, A [R, C]. Each y is a dot product over 64 lanes of fused multiply-adds and their tree, in blocks of 4,096 that join in f64,
// ascending. Error 2e-6 of sum |a x|.
void matvec(Context& context, View<const float, 2> a, std::span<const float> x, std::span<float> y) noexcept;

// A sparse matrix by rows: row r holds values[i] at column col_idx[i], row_ptr[r] <= i < row_ptr[r + 1]. Columns may repeat and stand
// in any order, and lie below 2^31.
struct CsrMatrix {
  std::span<const float> values;
  std::span<const uint32_t> col_idx, row_ptr;  // [nnz], [R + 1]
};
// y = A x. Each y is summed over 16 lanes of fused multiply-adds (entry of the row mod 16) and their tree, in blocks of 4,096 that
// join in f64; an empty row gives 0. Error 2e-6 of sum |a x|.
void spmv_csr(Context& context, const CsrMatrix& a, std::span<const float> x, std::span<float> y) noexcept;

// X with A X = B: A [n, n] triangular (the other half is never read), B and X [n, m]; X may be B. Substitution by blocks of 64 rows:
// t = b - (dot product of matvec with the blocks solved before), then t = fma(-a, x, t) over the block's rows in the order they are
// solved, x = t / a_rr. A pivot of zero gives infinity or NaN. r 2e-5, a 1e-5 max|X| for well-conditioned A.
ScratchNeed triangular_solve_scratch(int64_t n, int64_t m);
struct Triangle {
  bool lower = true, unit_diagonal = false;  // unit: the diagonal counts as 1 and is not read
};
void triangular_solve(Context& context, View<const float, 2> a, View<const float, 2> b, Triangle triangle,
                      View<float, 2> x) noexcept;

// y[i, j] = u[i] v[j], [m, n]; exact to rounding.
void outer_product(Context& context, std::span<const float> u, std::span<const float> v, View<float, 2> y) noexcept;

}  // namespace graft
