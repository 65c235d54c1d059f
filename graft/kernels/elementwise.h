#pragma once

#include <cstdint>
#include <span>

#include "graft/base/random.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// y = a + b. Any may alias.
template <typename T>
void add(Context& context, View<const T, 2> a, View<const T, 2> b, View<T, 2> y) noexcept;

// y = z * (magnitude / norm) + bias (one fused multiply-add), per column: DoRA's output (arXiv:2402.09353). bias may be empty. y may be z.
template <typename T>
void column_scale(Context& context, View<const T, 2> z, std::span<const T> magnitude, std::span<const T> norm,
                  std::span<const T> bias, View<T, 2> y) noexcept;
// dz = dy * (magnitude / norm); dmagnitude[j] += sum_i dy[i,j] * z[i,j] / norm[j] (rows ascending in blocks of 512);
// dbias[j] += sum_i dy[i,j] where not empty. The norm is a constant, as in the paper. dz may be dy.
template <typename T>
void column_scale_backward(Context& context, View<const T, 2> dy, View<const T, 2> z, std::span<const T> magnitude,
                           std::span<const T> norm, View<T, 2> dz, std::span<T> dmagnitude,
                           std::span<T> dbias) noexcept;

// dbias[j] += sum_i dy[i,j], rows ascending in blocks of 512.
template <typename T>
void sum_rows(Context& context, View<const T, 2> dy, std::span<T> dbias) noexcept;

// Inverted dropout: y = keep ? x * (1 / (1 - p)) : 0, keep when the uniform draw of element (i, j) is >= p. Counter-based, so that
// batching never shows: the draw is word j mod 4 of the Philox block with key stream.key() and counter
//   {j / 4, update (low 32 bits), row_keys[i] low, row_keys[i] high},
// its upper 24 bits read as a fraction; row_keys[i] names (data row, position), say row in the high and position in the low half.
// A stream drawn from here must not be drawn from by RandomStream::block. p in [0, 1). Forward and backward are the same call. y may be x.
template <typename T>
void dropout(Context& context, const RandomStream& stream, uint64_t update, std::span<const uint64_t> row_keys,
             double p, View<const T, 2> x, View<T, 2> y) noexcept;

}  // namespace graft
