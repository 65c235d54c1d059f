#pragma once

// One lane in plain C++ under the names of Highway's operations, so that an elementwise chain is written once (map_chains_inl.h) and is
// both: the scalar reference that defines the bits, and the vector code. Internal to each file that includes it (ref.h).
// Only what the chains use; each is one IEEE operation.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "graft/kernels/math_ref_inl.h"

namespace graft {
namespace {
namespace scalar_lanes {

struct FloatTag {};
struct IntTag {};
template <class D>
struct Lane {
  using Type = float;
};
template <>
struct Lane<IntTag> {
  using Type = int32_t;
};
template <class D>
using Vec = typename Lane<D>::Type;
template <class D>
using RebindToSigned = IntTag;

inline float Set(FloatTag, float x) { return x; }
inline int32_t Set(IntTag, int32_t x) { return x; }
inline float Zero(FloatTag) { return 0; }
inline float Add(float a, float b) { return a + b; }
inline float Sub(float a, float b) { return a - b; }
inline float Mul(float a, float b) { return a * b; }
inline float Div(float a, float b) { return a / b; }
inline float MulAdd(float a, float b, float c) { return std::fma(a, b, c); }
inline float Neg(float a) { return -a; }
inline float Abs(float a) { return std::fabs(a); }
inline float CopySign(float magnitude, float sign) { return std::copysign(magnitude, sign); }
inline bool Lt(float a, float b) { return a < b; }
inline bool Gt(float a, float b) { return a > b; }
inline bool Le(float a, float b) { return a <= b; }
inline bool Ge(float a, float b) { return a >= b; }
inline bool Eq(float a, float b) { return a == b; }
inline bool Ne(float a, float b) { return a != b; }
inline float IfThenElse(bool mask, float yes, float no) { return mask ? yes : no; }
inline int32_t Add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline int32_t Sub(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
template <int kBits>
int32_t ShiftLeft(int32_t a) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) << kBits);
}
inline int32_t BitCast(IntTag, float x) { return std::bit_cast<int32_t>(x); }
inline float BitCast(FloatTag, int32_t x) { return std::bit_cast<float>(x); }

}  // namespace scalar_lanes

inline float exp_f32(scalar_lanes::FloatTag, float x) { return exp_chain(x); }
inline float log_f32(scalar_lanes::FloatTag, float x) { return log_chain(x); }

}  // namespace
}  // namespace graft
