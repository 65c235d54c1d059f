#pragma once

#include <cstdint>

namespace graft {

struct PhiloxStream {
  uint64_t seed, stream;
};

// What prng.cc runs: whole blocks of four words from `block` on. Each returns how many it did; the vector forms leave the rest of a
// vector to the reference. `past`: y leaves the cache, so store past it.
struct PrngTable {
  int64_t (*words)(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t* y, bool past) noexcept;
  int64_t (*uniform)(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool past) noexcept;
  int64_t (*normal)(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool past) noexcept;
  // mask = (word >> 8) < limit
  int64_t (*mask)(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t limit, uint8_t* y) noexcept;
};
const PrngTable& prng_ref() noexcept;
const PrngTable& prng_fma_ref() noexcept;
const PrngTable* prng_simd() noexcept;  // null: run the reference

}  // namespace graft
