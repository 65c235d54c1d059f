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
}  // namespace
}  // namespace graft
