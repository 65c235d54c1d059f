#pragma once

#include <cstdint>

namespace graft {

// The inner loops of the measurements, one table per instruction set (kernels/simd.h). Results are returned so that
// nothing is dropped.
struct MachineTable {
  float (*fma)(int64_t rounds) noexcept;  // kFmaChains independent chains of one vector each, `rounds` steps
  int fma_flops_per_round;
  uint32_t (*read)(const uint32_t* data, int64_t count) noexcept;  // count a multiple of 8 * 64
};

const MachineTable* machine_simd() noexcept;                    // null: scalar loops
float (*machine_bf16_dot() noexcept)(int64_t rounds) noexcept;  // null where the code does not exist
constexpr int kBf16DotFlopsPerRound = 24 * 16 * 2 * 2;          // 24 chains of 16 lanes, 2 products each

}  // namespace graft
