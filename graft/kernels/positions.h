#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Positions for attention. Source: spec/kernels.md, section 15. (rope.h has what training needs: transformers' f32 angles, rotation by
// a position for each token, its inverse.)

// cos[i, j], sin[i, j] of angle(start + i, j) = p base^(-2 j / d), i < L, j < d / 2, with the angles in f64; absolute error 2e-7 for
// |p| up to 2^31. kLinear: p / factor for p; kNtk: base factor^(d / (d - 2)) for base. Every row is a product of at most three
// exact rotations: by multiples of 1024, of 32, and 0 … 31 (those by powers of two, then products), in f64. cos, sin [L, d / 2],
// contiguous rows. Scratch: rope_precompute_scratch.
struct RopeAngles {
  enum class Scaling : uint8_t { kNone, kLinear, kNtk };
  int64_t start = 0;
  double base = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;
};
ScratchNeed rope_precompute_scratch(int64_t length, int64_t half) noexcept;
void rope_precompute(Context& context, const RopeAngles& angles, View<float, 2> cos, View<float, 2> sin) noexcept;

// Turns each head of x [B, L, H, d] by its row of cos, sin [L, d / 2]: (a, b) -> (a c - b s, a s + b c), with (a, b) features
// (j, j + d / 2), or (2 j, 2 j + 1) if interleaved. The arithmetic and the code are rope's (rope.h). Features contiguous; y may be x.
// r 4e-7 a 5e-7.
void rope_apply(Context& context, View<const float, 4> x, View<const float, 2> cos, View<const float, 2> sin,
                bool interleaved, View<float, 4> y) noexcept;

// slopes[h] = 2^(-8 (h + 1) / H) for H a power of two; else those of the power of two below, then every other one of the power above.
void alibi_slopes(std::span<float> slopes) noexcept;
// y[h, i, j] = scores[h, i, j] - slopes[h] (i + Lk - Lq - j), in one rounding; [H, Lq, Lk], contiguous; y may be scores.
void alibi_bias(Context& context, View<const float, 3> scores, std::span<const float> slopes,
                View<float, 3> y) noexcept;

}  // namespace graft
