#pragma once

#include <cstdint>

#include "graft/kernels/softmax_table.h"

namespace graft {

// What loss.cc runs on one row of logits.
template <typename T>
struct LossTable {
  SoftmaxSums<T> (*softmax_sums)(const T* z, int64_t n) noexcept;
  T (*sum_logits)(const T* z, int64_t n) noexcept;
  // z <- weight * (exp(z - maximum) * inverse_sum - smooth)
  void (*softmax_gradient)(T* z, int64_t n, T maximum, T inverse_sum, T smooth, T weight) noexcept;
};
template <typename T>
const LossTable<T>& loss_ref() noexcept;
template <typename T>
const LossTable<T>& loss_fma() noexcept;
const LossTable<float>* loss_simd() noexcept;  // null: run the reference

}  // namespace graft
