#pragma once

#include "graft/base/view.h"

namespace graft {

// What activation.cc runs on a range of rows.
template <typename T>
struct ActivationTable {
  void (*swiglu)(View<const T, 2> gate, View<const T, 2> up, View<T, 2> y) noexcept;
  void (*swiglu_backward)(View<const T, 2> dy, View<const T, 2> gate, View<const T, 2> up, View<T, 2> dgate,
                          View<T, 2> dup) noexcept;
};
template <typename T>
const ActivationTable<T>& activation_ref() noexcept;
template <typename T>
const ActivationTable<T>& activation_fma() noexcept;
const ActivationTable<float>* activation_simd() noexcept;  // null: run the reference

}  // namespace graft
