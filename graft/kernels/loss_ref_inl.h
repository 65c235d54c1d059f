#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/kernels/loss_table.h"
#include "graft/kernels/math_ref_inl.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

// Blocks of 4,096 ascending: the running maximum takes in the block's, the running sum is rescaled by e^(old - new)
// (always), the block's sum is added. While all is -infinity, 0 stands in for the maximum, so that -infinity -
// -infinity never shows.
template <typename T>
SoftmaxSums<T> softmax_sums(const T* z, int64_t n) noexcept {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  T maximum = kNone, sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(begin + kSumBlock, n);
    const T next = max_or_nan(maximum, max_block(z, begin, end));
    const T shift = next == kNone ? T{0} : next;
    const T block = sum_block<T>(begin, end, [&](T lane, int64_t j) { return lane + exp_chain(z[j] - shift); });
    sum = std::fma(sum, exp_chain(maximum - shift), block);
    maximum = next;
  }
  return {maximum, sum};
}

template <typename T>
T sum_logits(const T* z, int64_t n) noexcept {
  return sum_vector<T>(n, [&](T lane, int64_t j) { return lane + z[j]; });
}

template <typename T>
void softmax_gradient(T* z, int64_t n, T maximum, T inverse_sum, T smooth, T weight) noexcept {
  for (int64_t j = 0; j < n; ++j) z[j] = weight * std::fma(exp_chain(z[j] - maximum), inverse_sum, -smooth);
}

template <typename T>
void subtract(const T* z, T c, T* y, int64_t n) noexcept {
  for (int64_t j = 0; j < n; ++j) y[j] = z[j] - c;
}

}  // namespace
}  // namespace graft
