#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Random numbers by Philox4x32-10 (graft/base/random.h). The key is (seed low, seed high), block b has the counter (b low, b high, stream
// low, stream high), and word 4 b + j is output j of block b. Element i of an output is draw `first` + i of the stream: any range can be
// generated alone, and neither threads nor variants change a bit. first + N stays below 2^64. Source: spec/kernels.md, section 22.

void prng_philox(Context& context, uint64_t seed, uint64_t stream, uint64_t first,
                 std::span<uint32_t> y) noexcept;  // the words
// The bare function: y[i] = philox(ctr[i], key[i]). ctr, y: [N, 4], key: [N, 2], rows contiguous; y may be ctr.
void prng_philox(Context& context, View<const uint32_t, 2> ctr, View<const uint32_t, 2> key,
                 View<uint32_t, 2> y) noexcept;

// y = (word >> 8) 2^-24, in [0, 1); exact.
void prng_uniform_f32(Context& context, uint64_t seed, uint64_t stream, uint64_t first, std::span<float> y) noexcept;

// Box and Muller on words 2j, 2j + 1 (w, w'): u1 = ((w >> 8) + 1) 2^-24, u2 = (w' >> 8) 2^-24,
//   z_2j = sqrt(-2 ln u1) cos 2 pi u2, z_2j+1 the same with sin. `first` is even. Error r 2e-6 a 4e-6; |z| is below 5.8.
void prng_normal_f32(Context& context, uint64_t seed, uint64_t stream, uint64_t first, std::span<float> y) noexcept;

// mask = uniform < keep_prob (rounded to f32) as 0 or 1; exact. NaN keeps nothing.
void prng_dropout_mask(Context& context, uint64_t seed, uint64_t stream, uint64_t first, double keep_prob,
                       std::span<uint8_t> mask) noexcept;

}  // namespace graft
