#pragma once

#include <cstdint>

namespace graft {

// One token: all heads of x rotated by the cosines and sines of its position (rope.h).
template <typename T>
struct RopeRow {
  int64_t heads = 0, head_dim = 0, half = 0;  // the first 2 * half features turn, the rest is copied
  const T* x = nullptr;                       // head h at x + h * x_head_stride, features contiguous
  T* y = nullptr;                             // may be x
  int64_t x_head_stride = 0, y_head_stride = 0;
  const float *cos = nullptr, *sin = nullptr;  // [half]
  bool interleaved = false, inverse = false;
  bool stream = false;  // y leaves the cache, and is not x: stored past it where vectors of y are aligned
};

using RopeRowFunction = void (*)(const RopeRow<float>&) noexcept;
RopeRowFunction rope_row_reference() noexcept;  // rope_ref.cc
RopeRowFunction rope_row_fma() noexcept;        // rope_fma.cc: the same source with the instruction
RopeRowFunction rope_row_simd() noexcept;       // rope_simd.cc; null where the level in force has no vector version
RopeRowFunction rope_row_function() noexcept;   // rope.cc: that of the level in force
void rope_row_double(const RopeRow<double>& row) noexcept;

}  // namespace graft
