#pragma once

#include <cstdint>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Copies of f32 into another order: every bit arrives as it was. Rows may lie at any distance (stride 1 along them); in and out must not
// overlap. Outputs that leave the cache are stored past it. Source: spec/kernels.md, section 10.

// y[c, r] = x[r, c]; x is [R, C], y is [C, R].
void transpose_2d(Context& context, View<const float, 2> x, View<float, 2> y) noexcept;
// n records of f fields, aos[n, f], to f arrays, soa[f, n]; f of 2, 3 and 4 are the fast cases.
void repack_aos_to_soa(Context& context, View<const float, 2> aos, View<float, 2> soa) noexcept;
// The inverse.
void repack_soa_to_aos(Context& context, View<const float, 2> soa, View<float, 2> aos) noexcept;

}  // namespace graft
