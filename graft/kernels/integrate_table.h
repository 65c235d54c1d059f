#pragma once

#include <cstdint>

#include "graft/kernels/integrate.h"

namespace graft {

struct Rk4Constants {
  float p;  // decay and forced: p; oscillator: -p^2
  float h, half, sixth;
};
constexpr int64_t kForcingSteps = 512;  // of cos t, cos(t + h/2), cos(t + h), made before they are used

// What integrate.cc runs on a range, on one thread.
struct IntegrateTable {
  // n states; forcing: three values a step, where the system takes them.
  void (*rk4)(OdeSystem system, const Rk4Constants& c, const float* forcing, int64_t steps, float* y,
              int64_t n) noexcept;
  void (*verlet)(float k, float h, float half_square, float half, int64_t steps, float* pos, float* vel, float* acc,
                 int64_t n) noexcept;
  // v[i] = f of the uniforms of sample i
  void (*integrand)(Integrand f, const float* u, float* v, int64_t n) noexcept;
};
const IntegrateTable& integrate_ref() noexcept;
const IntegrateTable& integrate_fma_ref() noexcept;
const IntegrateTable* integrate_simd() noexcept;  // null: run the reference

}  // namespace graft
