#pragma once

#include <cstdint>

namespace graft {

// What grid.cc runs on one row of `width` cells.
struct GridTable {
  // periodic: the row's ends are neighbours; else the first and the last cell are copied. y may be `before`.
  void (*heat)(const float* above, const float* row, const float* below, float r, float* y, int64_t width,
               bool periodic) noexcept;
  void (*wave)(const float* above, const float* row, const float* below, const float* before, float c2, float* y,
               int64_t width, bool periodic) noexcept;
  // y[j] = sum_k coeffs[k] source[k][j], j < n. `past`: y leaves the cache, so store past it.
  void (*stencil)(const float* const* source, const float* coeffs, int64_t m, float* y, int64_t n, bool past) noexcept;
};
const GridTable& grid_ref() noexcept;
const GridTable& grid_fma_ref() noexcept;
const GridTable* grid_simd() noexcept;  // null: run the reference

}  // namespace graft
