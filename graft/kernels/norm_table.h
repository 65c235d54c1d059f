#pragma once

#include <cstdint>

#include "graft/base/view.h"

namespace graft {

// Gamma and beta of row i of a layer norm: those of group i mod groups, [groups, n / length], each for `length` neighbours.
template <typename T>
struct Affine {
  const T *gamma, *beta;
  int64_t groups = 1, length = 1;
};

// What norm.cc runs on a range of rows (forward, backward) or of at most kStripe columns (dweight). rrms, mean and rstd may be null in
// the forward; dweight in the backward, where it takes in the rows' chains.
template <typename T>
struct NormTable {
  void (*rms_norm)(View<const T, 2> x, const T* weight, T eps, View<T, 2> y, T* rrms, bool stream) noexcept;
  void (*rms_norm_backward)(View<const T, 2> dy, View<const T, 2> x, const T* weight, const T* rrms,
                            View<const T, 2> residual, View<T, 2> dx, T* dweight) noexcept;
  void (*rms_norm_dweight)(View<const T, 2> dy, View<const T, 2> x, const T* rrms, T* dweight) noexcept;
  // `first`: the row's number for Affine.
  void (*layer_norm)(View<const T, 2> x, const Affine<T>& affine, int64_t first, T eps, View<T, 2> y, T* mean, T* rstd,
                     bool stream) noexcept;
  // y = layer norm * m + residual, m = scale where the mask is not 0, else 0.
  void (*layer_norm_dropout)(View<const T, 2> x, const Affine<T>& affine, T eps, View<const uint8_t, 2> mask, T scale,
                             View<const T, 2> residual, View<T, 2> y, bool stream) noexcept;
  void (*layer_norm_backward)(View<const T, 2> dy, View<const T, 2> x, const T* gamma, const T* mean, const T* rstd,
                              View<T, 2> dx, T* dgamma, T* dbeta) noexcept;
  void (*layer_norm_dweight)(View<const T, 2> dy, View<const T, 2> x, const T* mean, const T* rstd, T* dgamma,
                             T* dbeta) noexcept;
};
template <typename T>
const NormTable<T>& norm_ref() noexcept;
template <typename T>
const NormTable<T>& norm_fma() noexcept;
const NormTable<float>* norm_simd() noexcept;  // null: run the reference

}  // namespace graft
