#pragma once

#include <cstdint>
#include <span>

#include "graft/base/float16.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Conversions between f32, f16 and scaled i8. The same bits from every variant and any number of threads. In and out do not overlap.
// Source: spec/kernels.md, section 9.

// Symmetric, a scale for each row: scale[r] = max |x[r, c]| / 127 in f32 (1 for a row of zeros), q = round half even (x / scale), in
// [-127, 127]; the quotient is the correctly rounded one. A row with an infinity or NaN has that as its scale and q = 0.
// Scratch: quantize_scratch(R, C).
ScratchNeed quantize_scratch(int64_t rows, int64_t columns) noexcept;
void quantize_f16_to_i8(Context& context, View<const f16, 2> x, View<int8_t, 2> q, std::span<float> scale) noexcept;

// x[r, c] = f16(q[r, c] scale[r]): the f32 product rounded to nearest, ties to even.
void dequantize_i8_to_f16(Context& context, View<const int8_t, 2> q, std::span<const float> scale,
                          View<f16, 2> x) noexcept;

// To nearest, ties to even; |x| >= 65520 gives infinity; subnormal halves and the sign of zero are kept; NaN gives a quiet NaN.
void quantize_f32_to_f16(Context& context, std::span<const float> x, std::span<f16> y) noexcept;

}  // namespace graft
