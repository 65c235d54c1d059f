#pragma once

#include <cstdint>

namespace graft {

template <typename T>
struct Rotations {  // [n] cosines and sines
  T *cos, *sin;
};

struct PositionsTable {
  // to = a after b, for n angles: cos = fma(ac, bc, -(as bs)), sin = fma(as, bc, ac bs). `to` may be neither.
  void (*join)(Rotations<const double> a, Rotations<const double> b, Rotations<double> to, int64_t n) noexcept;
  void (*join_f32)(Rotations<const double> a, Rotations<const double> b, Rotations<float> to, int64_t n) noexcept;
  // y[j] = fma(-slope, float(distance - j), scores[j]); `stream`: y leaves the cache.
  void (*alibi_row)(const float* scores, float slope, int64_t distance, float* y, int64_t n, bool stream) noexcept;
};
const PositionsTable& positions_ref() noexcept;
const PositionsTable& positions_fma_ref() noexcept;
const PositionsTable* positions_simd() noexcept;  // null: run the reference

}  // namespace graft
