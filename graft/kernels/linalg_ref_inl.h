#pragma once

// The scalar reference of linalg.h; compiled twice (ref.h).

#include "graft/kernels/linalg_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

// block(begin, end) over [0, n) in blocks; more than one join in f64.
template <typename Block>
float join_blocks(int64_t n, Block&& block) noexcept {
  if (n <= kDotBlock) return block(int64_t{0}, n);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kDotBlock) {
    total += static_cast<double>(block(begin, begin + kDotBlock < n ? begin + kDotBlock : n));
  }
  return static_cast<float>(total);
}

void dots(const float* a, int64_t a_row, int64_t rows, const float* x, int64_t n, float* out) noexcept {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = a + r * a_row;
    out[r] = join_blocks(n, [&](int64_t begin, int64_t end) {
      return sum_block<float>(begin, end, [&](float acc, int64_t j) { return __builtin_fmaf(row[j], x[j], acc); });
    });
  }
}

void solve_block(const float* a, int64_t a_row, int64_t n, Triangle triangle, float* t, int64_t t_row,
                 int64_t columns) noexcept {
  for (int64_t c = 0; c < columns; ++c) {
    float* x = t + c * t_row;
    for (int64_t step = 0; step < n; ++step) {
      const int64_t r = triangle.lower ? step : n - 1 - step;
      if (!triangle.unit_diagonal) x[r] /= a[r * a_row + r];
      for (int64_t i = triangle.lower ? r + 1 : 0; i < (triangle.lower ? n : r); ++i) {
        x[i] = __builtin_fmaf(-a[i * a_row + r], x[r], x[i]);
      }
    }
  }
}

void spmv(const CsrMatrix& a, const float* x, int64_t first, int64_t last, float* y) noexcept {
  const float* values = a.values.data();
  const uint32_t* columns = a.col_idx.data();
  for (int64_t r = first; r < last; ++r) {
    const int64_t from = a.row_ptr.data()[r];
    y[r] = join_blocks(a.row_ptr.data()[r + 1] - from, [&](int64_t begin, int64_t end) {
      float lanes[kCsrLanes] = {};
      for (int64_t i = begin; i < end; ++i) {
        float& lane = lanes[(i - begin) % kCsrLanes];
        lane = __builtin_fmaf(values[from + i], x[columns[from + i]], lane);
      }
      for (int64_t width = kCsrLanes / 2; width >= 1; width /= 2) {
        for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
      }
      return lanes[0];
    });
  }
}

void outer_row(float u, const float* v, float* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t j = 0; j < n; ++j) y[j] = u * v[j];
}

constexpr LinalgTable kTable = {dots, solve_block, spmv, outer_row};

}  // namespace
}  // namespace graft
