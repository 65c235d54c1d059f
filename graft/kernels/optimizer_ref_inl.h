#pragma once

#include <cmath>

#include "graft/kernels/optimizer_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

template <typename T>
T clamped(T x, T bound) noexcept {  // NaN stays
  return x > bound ? bound : x < -bound ? -bound : x;
}

template <typename T, bool kClip>
void adamw_range(const AdamWScalars<T>& s, const T* grad, T* param, T* m, T* v, int64_t n) noexcept {
  constexpr T kTiny = static_cast<T>(0x1p-100);
  for (int64_t i = 0; i < n; ++i) {
    const T g = s.grad_scale * (kClip ? clamped(grad[i], s.clip) : grad[i]);
    T mi = std::fma(s.one_minus_beta1, g - m[i], m[i]);
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
void sgd_momentum_range(T lr, T momentum, const T* grad, T* param, T* velocity, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    velocity[i] = std::fma(momentum, velocity[i], grad[i]);
    param[i] = std::fma(-lr, velocity[i], param[i]);
  }
}

template <typename T>
void scale_range(T by, const T* x, T* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = by * x[i];
}

template <typename T>
void clamp_range(T bound, const T* x, T* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = clamped(x[i], bound);
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

template <typename T>
constexpr OptimizerTable<T> kTable = {adamw_range<T, false>, adamw_range<T, true>,     sgd_range<T>,
                                      sum_squares_block<T>,  sgd_momentum_range<T>,    scale_range<T>,
                                      clamp_range<T>,        first_non_finite_range<T>};

}  // namespace
}  // namespace graft
