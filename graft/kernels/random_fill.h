#pragma once

#include <cstdint>
#include <span>

#include "graft/base/random.h"
#include "graft/kernels/context.h"

namespace graft {

// Random starts of weights. Element i is drawn by word i mod 4 of Philox block i / 4 (update 0) of the stream: the same
// bits on every CPU, on any number of threads, whatever the size. T is float or double; sums are formed in f64 and
// rounded once.

// x[i] = low + (high - low) * u, u a multiple of 2^-24 in [0, 1). low <= x[i] <= high (high itself only by rounding).
template <typename T>
void fill_uniform(Context& context, const RandomStream& stream, double low, double high, std::span<T> x) noexcept;

// x[i] from N(0, std^2) by Box and Muller on the words of elements 2j and 2j + 1: u1 in (0, 1], u2 in [0, 1) of 24 bits
// each,
//   x[2j] = std * sqrt(-2 ln u1) cos(2 pi u2), x[2j+1] the same with sin. |x[i]| is below 5.8 std.
template <typename T>
void fill_normal(Context& context, const RandomStream& stream, double std, std::span<T> x) noexcept;

}  // namespace graft
