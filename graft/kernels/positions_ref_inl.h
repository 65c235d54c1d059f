#pragma once

// The scalar reference of positions.h; compiled twice (ref.h).

#include "graft/kernels/positions_table.h"

namespace graft {
namespace {

template <typename T>
void join(Rotations<const double> a, Rotations<const double> b, Rotations<T> to, int64_t n) noexcept {
  for (int64_t j = 0; j < n; ++j) {
    to.cos[j] = static_cast<T>(__builtin_fma(a.cos[j], b.cos[j], -(a.sin[j] * b.sin[j])));
    to.sin[j] = static_cast<T>(__builtin_fma(a.sin[j], b.cos[j], a.cos[j] * b.sin[j]));
  }
}

void alibi_row(const float* scores, float slope, int64_t distance, float* y, int64_t n, bool /*stream*/) noexcept {
  const auto from = static_cast<float>(distance);
  for (int64_t j = 0; j < n; ++j) y[j] = __builtin_fmaf(-slope, from - static_cast<float>(j), scores[j]);
}

constexpr PositionsTable kTable = {join<double>, join<float>, alibi_row};

}  // namespace
}  // namespace graft
