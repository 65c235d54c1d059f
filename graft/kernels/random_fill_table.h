#pragma once

#include <cstdint>

#include "graft/kernels/prng_table.h"

namespace graft {

// fill_normal's values of whole Philox blocks, four each, in f32; returns how many blocks it did (whole vectors of them).
struct RandomFillTable {
  int64_t (*normal)(PhiloxStream s, uint64_t block, int64_t blocks, double std, float* x) noexcept;
};
const RandomFillTable* random_fill_simd() noexcept;  // null: the scalar form

}  // namespace graft
