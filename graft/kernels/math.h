#pragma once

#include <cstdint>

namespace graft {

// graft's own elementary functions in f32: one definition in multiplies, fused multiply-adds and bit moves, so that
// every variant returns the same bits. NaN in gives NaN; infinities and subnormals as IEEE has them. Error at most 1
// ulp (stated with each). The scalar forms; SIMD forms of the same chains stand in math_inl.h. Tested by a hash over
// all 2^32 inputs per target.
float exp_f32(float x) noexcept;
float log_f32(float x) noexcept;
// sin and cos of t 2^-32 turns (2 pi t / 2^32): angles in turns reduce exactly.
void sincos_turns(uint32_t t, float* sine, float* cosine) noexcept;

// f64 forms for tables and schedules: the same bits on every CPU (no libm), error below 1e-15 relative (absolute for
// sine, cosine of |x| < 1e6).
double exp_f64(double x) noexcept;
double log_f64(double x) noexcept;
double pow_f64(double x, double y) noexcept;  // x > 0
void sincos_f64(double x, double* sine, double* cosine) noexcept;

}  // namespace graft
