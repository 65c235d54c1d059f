#pragma once

#include <cmath>

#include "graft/kernels/loss_table.h"
#include "graft/kernels/softmax_sums_ref_inl.h"

namespace graft {
namespace {

template <typename T>
T sum_logits(const T* z, int64_t n) noexcept {
  return sum_vector<T>(n, [&](T lane, int64_t j) { return lane + z[j]; });
}

template <typename T>
void softmax_gradient(T* z, int64_t n, T maximum, T inverse_sum, T smooth, T weight) noexcept {
  for (int64_t j = 0; j < n; ++j) z[j] = weight * std::fma(exp_chain(z[j] - maximum), inverse_sum, -smooth);
}

}  // namespace
}  // namespace graft
