#pragma once

#include <cmath>

#include "graft/base/view.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
void rms_norm_rows(View<const T, 2> x, const T* weight, T eps, View<T, 2> y, T* rrms) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const T squares = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(in[j], in[j], lane); });
    const T r = T{1} / std::sqrt(squares / static_cast<T>(n) + eps);
    if (rrms != nullptr) rrms[i] = r;
    for (int64_t j = 0; j < n; ++j) out[j] = (in[j] * r) * weight[j];
  }
}

template <typename T>
void rms_norm_backward_rows(View<const T, 2> dy, View<const T, 2> x, const T* weight, const T* rrms,
                            View<const T, 2> residual, View<T, 2> dx) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T *up = dy.row(i), *in = x.row(i), r = rrms[i];
    T* out = dx.row(i);
    const T dot = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(up[j] * weight[j], in[j], lane); });
    const T c = (r * r) * (dot / static_cast<T>(n));
    const T* add = residual.data() != nullptr ? residual.row(i) : nullptr;
    for (int64_t j = 0; j < n; ++j) {
      const T inner = std::fma(-in[j], c, up[j] * weight[j]);
      out[j] = add != nullptr ? std::fma(r, inner, add[j]) : r * inner;
    }
  }
}

template <typename T>
void rms_norm_dweight_columns(View<const T, 2> dy, View<const T, 2> x, const T* rrms, T* dweight) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0);
  T sums[kStripe];
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    for (int64_t j = 0; j < n; ++j) sums[j] = 0;
    for (int64_t i = begin; i < std::min(begin + kRowSumBlock, rows); ++i) {
      const T *up = dy.row(i), *in = x.row(i), r = rrms[i];
      for (int64_t j = 0; j < n; ++j) sums[j] = std::fma(up[j], in[j] * r, sums[j]);
    }
    for (int64_t j = 0; j < n; ++j) dweight[j] += sums[j];
  }
}

}  // namespace
}  // namespace graft
