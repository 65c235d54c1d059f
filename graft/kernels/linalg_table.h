#pragma once

#include <cstdint>

#include "graft/kernels/linalg.h"

namespace graft {

constexpr int64_t kSolveBlock = 64;  // rows of a block of substitution
constexpr int64_t kCsrLanes = 16;    // lanes of a row's sum
constexpr int64_t kDotBlock = 4096;  // terms of a block; blocks join in f64

struct LinalgTable {
  // out[r] = a[r] . x for r < rows (linalg.h: matvec).
  void (*dots)(const float* a, int64_t a_row, int64_t rows, const float* x, int64_t n, float* out) noexcept;
  // t[c][i] for c < columns holds b minus what was solved before, and becomes x: n <= 64 rows of one diagonal block.
  void (*solve_block)(const float* a, int64_t a_row, int64_t n, Triangle triangle, float* t, int64_t t_row,
                      int64_t columns) noexcept;
  // y[r] for r in [first, last).
  void (*spmv)(const CsrMatrix& a, const float* x, int64_t first, int64_t last, float* y) noexcept;
  // y[j] = u v[j]; `stream`: y leaves the cache.
  void (*outer_row)(float u, const float* v, float* y, int64_t n, bool stream) noexcept;
};
const LinalgTable& linalg_ref() noexcept;
const LinalgTable& linalg_fma_ref() noexcept;
const LinalgTable* linalg_simd() noexcept;  // null: run the reference

}  // namespace graft
