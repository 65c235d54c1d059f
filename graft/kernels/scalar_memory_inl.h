#pragma once

// Loads, stores and further arithmetic for scalar_lanes_inl.h: what chains with a memory pattern of their own use.

#include "graft/kernels/scalar_lanes_inl.h"

namespace graft {
namespace {
namespace scalar_lanes {

inline float LoadU(FloatTag, const float* from) { return *from; }
inline void StoreU(float x, FloatTag, float* to) { *to = x; }
inline float MulSub(float a, float b, float c) { return std::fma(a, b, -c); }
inline float NegMulAdd(float a, float b, float c) { return std::fma(-a, b, c); }

}  // namespace scalar_lanes

// As pairs_inl.h has them.
inline void load_pairs(scalar_lanes::FloatTag, const float* from, float& re, float& im) {
  re = from[0];
  im = from[1];
}
inline void store_pairs(scalar_lanes::FloatTag, float re, float im, float* to) {
  to[0] = re;
  to[1] = im;
}
inline void load_triples(scalar_lanes::FloatTag, const float* from, float& a, float& b, float& c) {
  a = from[0];
  b = from[1];
  c = from[2];
}
inline void store_triples(scalar_lanes::FloatTag, float a, float b, float c, float* to) {
  to[0] = a;
  to[1] = b;
  to[2] = c;
}
inline float reverse(scalar_lanes::FloatTag, float v) { return v; }
inline void store_past(scalar_lanes::FloatTag, float v, float* to) { *to = v; }
inline void flush_past() {}
}  // namespace
}  // namespace graft
