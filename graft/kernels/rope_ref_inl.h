#pragma once

// The scalar reference of rope.h; included by rope_ref.cc and rope_fma.cc only (internal linkage: see
// attention_ref_inl.h).

#include "graft/kernels/rope_table.h"

namespace graft {
namespace {

inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <typename T>
void rope_row_plain(const RopeRow<T>& row) noexcept {
  const int64_t step = row.interleaved ? 2 : 1, other = row.interleaved ? 1 : row.half;
  for (int64_t head = 0; head < row.heads; ++head) {
    const T* x = row.x + head * row.x_head_stride;
    T* y = row.y + head * row.y_head_stride;
    for (int64_t i = 0; i < row.half; ++i) {
      const T c = static_cast<T>(row.cos[i]), s = static_cast<T>(row.inverse ? -row.sin[i] : row.sin[i]);
      const T x1 = x[i * step], x2 = x[i * step + other];
      y[i * step] = fused(x1, c, -(x2 * s));
      y[i * step + other] = fused(x2, c, x1 * s);
    }
    for (int64_t i = 2 * row.half; i < row.head_dim; ++i) y[i] = x[i];
  }
}

}  // namespace
}  // namespace graft
