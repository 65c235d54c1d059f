#pragma once

#include <algorithm>
#include <cmath>

#include "graft/base/random.h"
#include "graft/base/view.h"
#include "graft/kernels/elementwise_table.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
void add_rows(View<const T, 2> a, View<const T, 2> b, View<T, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const T *left = a.row(i), *right = b.row(i);
    T* out = y.row(i);
    for (int64_t j = 0; j < y.extent(1); ++j) out[j] = left[j] + right[j];
  }
}

template <typename T>
void column_scale_rows(View<const T, 2> z, const T* ratio, const T* bias, View<T, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const T* in = z.row(i);
    T* out = y.row(i);
    for (int64_t j = 0; j < y.extent(1); ++j) {
      out[j] = bias != nullptr ? std::fma(in[j], ratio[j], bias[j]) : in[j] * ratio[j];
    }
  }
}

// Chains over blocks of rows: into[j] += step(…) of every row.
template <typename T, typename Step, typename Finish>
void sum_columns(int64_t rows, int64_t columns, Step&& step, Finish&& finish) noexcept {
  T sums[kStripe];
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    for (int64_t j = 0; j < columns; ++j) sums[j] = 0;
    for (int64_t i = begin; i < std::min(begin + kRowSumBlock, rows); ++i) {
      for (int64_t j = 0; j < columns; ++j) sums[j] = step(sums[j], i, j);
    }
    for (int64_t j = 0; j < columns; ++j) finish(sums[j], j);
  }
}

template <typename T>
void column_scale_backward_columns(View<const T, 2> dy, View<const T, 2> z, const T* norm, T* dmagnitude) noexcept {
  sum_columns<T>(
      dy.extent(0), dy.extent(1), [&](T sum, int64_t i, int64_t j) { return std::fma(dy.row(i)[j], z.row(i)[j], sum); },
      [&](T sum, int64_t j) { dmagnitude[j] += sum / norm[j]; });
}

template <typename T>
void sum_rows_columns(View<const T, 2> dy, T* dbias) noexcept {
  sum_columns<T>(
      dy.extent(0), dy.extent(1), [&](T sum, int64_t i, int64_t j) { return sum + dy.row(i)[j]; },
      [&](T sum, int64_t j) { dbias[j] += sum; });
}

template <typename T>
void dropout_rows(const DropoutDraw<T>& draw, const uint64_t* row_keys, View<const T, 2> x, View<T, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const auto low = static_cast<uint32_t>(row_keys[i]), high = static_cast<uint32_t>(row_keys[i] >> 32);
    for (int64_t j = 0; j < y.extent(1); j += 4) {
      const auto words = philox4x32(draw.key, {static_cast<uint32_t>(j / 4), draw.update, low, high});
      for (int64_t k = j; k < std::min(j + 4, y.extent(1)); ++k) {
        out[k] = (words[static_cast<size_t>(k - j)] >> 8) >= draw.threshold ? in[k] * draw.scale : T{0};
      }
    }
  }
}

}  // namespace
}  // namespace graft
