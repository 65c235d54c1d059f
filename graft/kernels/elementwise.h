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

// y = z * (magnitude / norm) + bias, per column: DoRA's output (arXiv:2402.09353). bias may be empty. y may be z.
template <typename T>
void column_scale(Context& context, View<const T, 2> z, std::span<const T> magnitude, std::span<const T> norm,
                  std::span<const T> bias, View<T, 2> y) noexcept;
// dz = dy * (magnitude / norm); dmagnitude[j] += sum_i dy[i,j] * z[i,j] / norm[j] (rows ascending in blocks of 512);
// dbias[j] += sum_i dy[i,j] where not empty. The norm is a constant, as in the paper. dz may be dy.
template <typename T>
void column_scale_backward(Context& context, View<const T, 2> dy, View<const T, 2> z, std::span<const T> magnitude,
                           std::span<const T> norm, View<T, 2> dz, std::span<T> dmagnitude, std::span<T> dbias) noexcept;

// dbias[j] += sum_i dy[i,j], rows ascending in blocks of 512.
template <typename T>
void sum_rows(Context& context, View<const T, 2> dy, std::span<T> dbias) noexcept;

// Inverted dropout: y = keep ? x / (1 - p) : 0, keep when uniform(row_keys[i], position, feature j) >= p. Counter-based: the
// draw is named by (stream key, update, row_keys[i] = (data row, position)), so that batching never shows. Forward and backward
// are the same call. y may be x.
template <typename T>
void dropout(Context& context, const RandomStream& stream, uint64_t update, std::span<const uint64_t> row_keys, double p,
             View<const T, 2> x, View<T, 2> y) noexcept;

}  // namespace graft
