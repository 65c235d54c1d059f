#pragma once

#include <cstdint>

namespace graft {

// AdamW's constants of one step, rounded to T once.
template <typename T>
struct AdamWScalars {
  T grad_scale, one_minus_beta1, beta2, one_minus_beta2;
  T decay;       // 1 - lr * weight_decay
  T step;        // lr / (1 - beta1^t)
  T root_scale;  // 1 / sqrt(1 - beta2^t)
  T eps;
  T clip;  // bound of |g|, before grad_scale; taken by adamw_clipped alone
};

// What optimizer.cc runs on a range of elements.
template <typename T>
struct OptimizerTable {
  void (*adamw)(const AdamWScalars<T>& s, const T* grad, T* param, T* m, T* v, int64_t n) noexcept;
  void (*adamw_clipped)(const AdamWScalars<T>& s, const T* grad, T* param, T* m, T* v, int64_t n) noexcept;
  void (*sgd)(T decay, T step, const T* grad, T* param, int64_t n) noexcept;  // p <- p * decay - step * g
  double (*sum_squares)(const T* x, int64_t n) noexcept;                      // one block, n at most 4,096
  void (*sgd_momentum)(T lr, T momentum, const T* grad, T* param, T* velocity, int64_t n) noexcept;
  // y = by x; y = x clamped to [-bound, bound]. y may be x; `stream`: it leaves the cache, so store past it.
  void (*scale)(T by, const T* x, T* y, int64_t n, bool stream) noexcept;
  void (*clamp)(T bound, const T* x, T* y, int64_t n, bool stream) noexcept;
  int64_t (*first_non_finite)(const T* x, int64_t n) noexcept;
};
template <typename T>
const OptimizerTable<T>& optimizer_ref() noexcept;
template <typename T>
const OptimizerTable<T>& optimizer_fma() noexcept;
const OptimizerTable<float>* optimizer_simd() noexcept;  // null: run the reference

}  // namespace graft
