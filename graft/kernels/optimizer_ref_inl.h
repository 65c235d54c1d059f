#pragma once

#include <cmath>

#include "graft/kernels/optimizer_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

template <typename T>
void adamw_range(const AdamWScalars<T>& s, const T* grad, T* param, T* m, T* v, int64_t n) noexcept {
  constexpr T kTiny = static_cast<T>(0x1p-100);
  for (int64_t i = 0; i < n; ++i) {
    const T g = s.grad_scale * grad[i];
    T mi = std::fma(s.beta1, m[i], s.one_minus_beta1 * g);
    T vi = std::fma(s.beta2, v[i], s.one_minus_beta2 * (g * g));
    mi = std::abs(mi) < kTiny ? T{0} : mi;  // NaN stays
    vi = vi < kTiny ? T{0} : vi;
    m[i] = mi;
    v[i] = vi;
    const T update = (s.step * mi) / std::fma(std::sqrt(vi), s.root_scale, s.eps);
    param[i] = std::fma(param[i], s.decay, -update);
  }
}

template <typename T>
void sgd_range(T decay, T step, const T* grad, T* param, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) param[i] = std::fma(-step, grad[i], param[i] * decay);
}

template <typename T>
double sum_squares_block(const T* x, int64_t n) noexcept {
  return sum_block<double>(0, n, [&](double lane, int64_t j) {
    const auto value = static_cast<double>(x[j]);
    return std::fma(value, value, lane);
  });
}

template <typename T>
int64_t first_non_finite_range(const T* x, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] - x[i] == 0)) return i;
  }
  return -1;
}

}  // namespace
}  // namespace graft
