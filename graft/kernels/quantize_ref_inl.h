#pragma once

// The scalar reference of the conversions (quantize_table.h). Compiled twice (ref.h).

#include <algorithm>
#include <cmath>

#include "graft/kernels/quantize_table.h"

namespace graft {
namespace {

uint16_t max_abs(const f16* x, int64_t n) noexcept {
  uint16_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max<uint16_t>(most, x[i].bits & 0x7FFF);
  return most;
}

// x / scale by the rounded reciprocal and one correction, which rounds it correctly (Markstein 1990): a division less for each element.
void to_i8(const f16* x, float scale, int8_t* q, int64_t n, bool /*stream*/) noexcept {
  const float inverse = 1.0f / scale;
  for (int64_t i = 0; i < n; ++i) {
    const float v = to_float(x[i]);
    const float near = v * inverse;
    q[i] = static_cast<int8_t>(std::nearbyint(std::fma(std::fma(-near, scale, v), inverse, near)));
  }
}
void from_i8(const int8_t* q, float scale, f16* x, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] = to_f16(static_cast<float>(q[i]) * scale);
}
void convert_to_f16(const float* x, f16* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = to_f16(x[i]);
}

constexpr QuantizeTable kTable = {max_abs, to_i8, from_i8, convert_to_f16};

}  // namespace
}  // namespace graft
