#pragma once

#include <array>
#include <cstdint>

#include "graft/base/view.h"

namespace graft {

// Which draws of a dropout are kept, and by what they are scaled: rounded once, in f64.
template <typename T>
struct DropoutDraw {
  std::array<uint32_t, 2> key;
  uint32_t update;     // low word
  uint32_t threshold;  // kept where word >> 8 is at least this: p in units of 2^-24, rounded up
  T scale;             // 1 / (1 - p)
};

// What elementwise.cc runs on a range of rows, or, where rows are summed, on at most kStripe columns.
template <typename T>
struct ElementwiseTable {
  void (*add)(View<const T, 2> a, View<const T, 2> b, View<T, 2> y) noexcept;
  // ratio = magnitude / norm, bias may be null.
  void (*column_scale)(View<const T, 2> z, const T* ratio, const T* bias, View<T, 2> y) noexcept;
  void (*column_scale_backward)(View<const T, 2> dy, View<const T, 2> z, const T* norm, T* dmagnitude) noexcept;
  void (*sum_rows)(View<const T, 2> dy, T* dbias) noexcept;
  void (*dropout)(const DropoutDraw<T>& draw, const uint64_t* row_keys, View<const T, 2> x, View<T, 2> y) noexcept;
};
template <typename T>
const ElementwiseTable<T>& elementwise_ref() noexcept;
template <typename T>
const ElementwiseTable<T>& elementwise_fma() noexcept;
const ElementwiseTable<float>* elementwise_simd() noexcept;  // null: run the reference

}  // namespace graft
