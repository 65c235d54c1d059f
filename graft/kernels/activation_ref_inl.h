#pragma once

#include "graft/base/view.h"
#include "graft/kernels/math_ref_inl.h"

namespace graft {
namespace {

template <typename T>
void swiglu_rows(View<const T, 2> gate, View<const T, 2> up, View<T, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const T *g = gate.row(i), *u = up.row(i);
    T* out = y.row(i);
    for (int64_t j = 0; j < y.extent(1); ++j) out[j] = (g[j] / (T{1} + exp_chain(-g[j]))) * u[j];
  }
}

template <typename T>
void swiglu_backward_rows(View<const T, 2> dy, View<const T, 2> gate, View<const T, 2> up, View<T, 2> dgate,
                          View<T, 2> dup) noexcept {
  for (int64_t i = 0; i < dy.extent(0); ++i) {
    const T *d = dy.row(i), *g = gate.row(i), *u = up.row(i);
    T *dg = dgate.row(i), *du = dup.row(i);
    for (int64_t j = 0; j < dy.extent(1); ++j) {
      const T dj = d[j], gj = g[j], uj = u[j];  // read before either is written: they may be one buffer
      const T s = T{1} / (T{1} + exp_chain(-gj));
      dg[j] = (dj * uj) * (s * std::fma(gj, T{1} - s, T{1}));
      du[j] = dj * (gj * s);
    }
  }
}

}  // namespace
}  // namespace graft
