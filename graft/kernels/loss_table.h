#pragma once

#include <cstdint>

namespace graft {

// sum_v exp(z[v] - maximum) = sum, so that log sum exp z = maximum + log(sum).
template <typename T>
struct SoftmaxSums {
  T maximum, sum;
};

// What loss.cc runs on one row of logits.
template <typename T>
struct LossTable {
  SoftmaxSums<T> (*softmax_sums)(const T* z, int64_t n) noexcept;
  T (*sum_logits)(const T* z, int64_t n) noexcept;
  // z <- weight * (exp(z - maximum) * inverse_sum - smooth)
  void (*softmax_gradient)(T* z, int64_t n, T maximum, T inverse_sum, T smooth, T weight) noexcept;
  void (*subtract)(const T* z, T c, T* y, int64_t n) noexcept;  // y = z - c
};
template <typename T>
const LossTable<T>& loss_ref() noexcept;
template <typename T>
const LossTable<T>& loss_fma() noexcept;
const LossTable<float>* loss_simd() noexcept;  // null: run the reference

}  // namespace graft
