#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Explicit steps on regular grids, rows contiguous. Every cell is a fixed chain of fused multiply-adds of its neighbours: the same bits from every
// variant and thread count, and from any number of steps taken together. Source: spec/kernels.md, section 21.

enum class Boundary : uint8_t {
  kFixed,     // cells within the stencil's radius of an edge keep their values
  kPeriodic,  // the grid wraps
};

// u' = u + r (4 neighbours - 4 u), r = alpha dt / dx^2, `steps` times in place; stable for r <= 1/4. Up to four steps go over the grid in one pass.
// a 3e-6 of the root mean square. Scratch: grid_scratch(H, W).
ScratchNeed grid_scratch(int64_t height, int64_t width) noexcept;
void sim_heat_equation(Context& context, double r, int64_t steps, Boundary boundary, View<float, 2> u) noexcept;

// u'' = 2 u - u_prev + c2 (4 neighbours - 4 u), c2 = (c dt / dx)^2; u_prev' = u; stable for c dt / dx <= 1 / sqrt 2. As above.
void sim_wave_equation(Context& context, double c2, int64_t steps, Boundary boundary, View<float, 2> u,
                       View<float, 2> u_prev) noexcept;

// y = sum_k coeffs[k] u[. + offsets[k]], offsets [m, 2] rows and columns, or [m, 3]; m >= 1. The radius of a fixed boundary is the largest offset of
// any axis. y does not overlap u. Scratch: stencil_scratch.
ScratchNeed stencil_scratch(View<const int32_t, 2> offsets, int64_t width) noexcept;
void sim_stencil_2d(Context& context, View<const float, 2> u, View<const int32_t, 2> offsets,
                    std::span<const float> coeffs, Boundary boundary, View<float, 2> y) noexcept;
void sim_stencil_3d(Context& context, View<const float, 3> u, View<const int32_t, 2> offsets,
                    std::span<const float> coeffs, Boundary boundary, View<float, 3> y) noexcept;

}  // namespace graft
