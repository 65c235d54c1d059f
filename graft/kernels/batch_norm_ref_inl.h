#pragma once

// The scalar reference of batch_norm. Compiled twice (ref.h).

#include <algorithm>
#include <cmath>

#include "graft/kernels/batch_norm_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

// The mean of a few rows: eight in a tree, fewer ascending.
float mean_of_rows(const float* x, int64_t stride, int64_t rows) noexcept {
  const auto at = [=](int64_t i) { return x[i * stride]; };
  if (rows == kMomentRows) {
    return (((at(0) + at(4)) + (at(2) + at(6))) + ((at(1) + at(5)) + (at(3) + at(7)))) * 0.125f;
  }
  float sum = at(0);
  for (int64_t i = 1; i < rows; ++i) sum += at(i);
  return sum / static_cast<float>(rows);
}

void column_moments(View<const float, 2> x, float* mean, float* m2) noexcept {
  for (int64_t begin = 0; begin < x.extent(0); begin += kMomentRows) {
    const int64_t rows = std::min(kMomentRows, x.extent(0) - begin);
    const Join join = join_of(begin, rows);
    for (int64_t j = 0; j < x.extent(1); ++j) {
      const float* in = x.row(begin) + j;
      const float part = mean_of_rows(in, x.stride(0), rows);
      float squares = 0;
      for (int64_t i = 0; i < rows; ++i) {
        const float apart = in[i * x.stride(0)] - part;
        squares = std::fma(apart, apart, squares);
      }
      if (begin == 0) {
        mean[j] = part;
        m2[j] = squares;
        continue;
      }
      const float delta = part - mean[j];
      mean[j] = std::fma(delta, join.mean_part, mean[j]);
      m2[j] = std::fma(delta * delta, join.m2_part, m2[j] + squares);
    }
  }
}

RunMoments run_moments(const float* x, int64_t n) noexcept {
  const float c = sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + x[j]; }) / static_cast<float>(n);
  return {c, sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + (x[j] - c); }),
          sum_block<float>(0, n, [=](float lane, int64_t j) { return std::fma(x[j] - c, x[j] - c, lane); })};
}

void scale_columns(View<const float, 2> x, const float* c, const float* a, const float* b, View<float, 2> y,
                   bool /*stream*/) noexcept {
  for (int64_t i = 0; i < x.extent(0); ++i) {
    for (int64_t j = 0; j < x.extent(1); ++j) y.row(i)[j] = std::fma(x.row(i)[j] - c[j], a[j], b[j]);
  }
}

void scale_run(const float* x, float c, float a, float b, float* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t j = 0; j < n; ++j) y[j] = std::fma(x[j] - c, a, b);
}

constexpr BatchNormTable kTable = {column_moments, run_moments, scale_columns, scale_run};

}  // namespace
}  // namespace graft
