#include "graft/kernels/math.h"

#include "graft/kernels/math_table.h"
#include "graft/kernels/ref.h"

namespace graft {
namespace {

const MathTable& table() noexcept {
  static const MathTable& chosen = pick_reference(kMathRef, kMathFma);
  return chosen;
}

}  // namespace

float exp_f32(float x) noexcept { return table().exp_f32(x); }
float log_f32(float x) noexcept { return table().log_f32(x); }
double exp_f64(double x) noexcept { return table().exp_f64(x); }
double log_f64(double x) noexcept { return table().log_f64(x); }
double pow_f64(double x, double y) noexcept { return table().pow_f64(x, y); }
void sincos_f64(double x, double* sine, double* cosine) noexcept { table().sincos_f64(x, sine, cosine); }
void sincos_turns(uint32_t t, float* sine, float* cosine) noexcept { table().sincos_turns(t, sine, cosine); }

}  // namespace graft
