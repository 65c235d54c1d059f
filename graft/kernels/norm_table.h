#pragma once

#include "graft/base/view.h"

namespace graft {

// What norm.cc runs on a range of rows (forward, backward) or of at most kStripe columns (dweight). rrms may be null in
// the forward.
template <typename T>
struct NormTable {
  void (*rms_norm)(View<const T, 2> x, const T* weight, T eps, View<T, 2> y, T* rrms) noexcept;
  void (*rms_norm_backward)(View<const T, 2> dy, View<const T, 2> x, const T* weight, const T* rrms,
                            View<const T, 2> residual, View<T, 2> dx) noexcept;
  void (*rms_norm_dweight)(View<const T, 2> dy, View<const T, 2> x, const T* rrms, T* dweight) noexcept;
};
template <typename T>
const NormTable<T>& norm_ref() noexcept;
template <typename T>
const NormTable<T>& norm_fma() noexcept;
const NormTable<float>* norm_simd() noexcept;  // null: run the reference

}  // namespace graft
