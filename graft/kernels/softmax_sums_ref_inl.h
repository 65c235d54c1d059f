#pragma once

// Maximum and sum of a row's softmax, scalar: the order that softmax.h states. Internal to each file that includes it (ref.h).

#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/kernels/math_ref_inl.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/softmax_table.h"

namespace graft {
namespace {

// While all is -infinity, 0 stands in for the maximum, so that -infinity - -infinity never shows.
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

}  // namespace
}  // namespace graft
