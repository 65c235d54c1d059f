#pragma once

#include <cstdint>

namespace graft {

// The scalar functions of math.h, one table per build of the reference (ref.h).
struct MathTable {
  float (*exp_f32)(float) noexcept;
  float (*log_f32)(float) noexcept;
  double (*exp_f64)(double) noexcept;
  double (*log_f64)(double) noexcept;
  double (*pow_f64)(double, double) noexcept;
  void (*sincos_f64)(double, double*, double*) noexcept;
  void (*sincos_turns)(uint32_t, float*, float*) noexcept;
  float (*mul_then_add)(float, float,
                        float) noexcept;  // a * b + c in two roundings: for the test that nothing is contracted
};
extern const MathTable kMathRef, kMathFma;

}  // namespace graft
