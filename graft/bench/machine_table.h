#pragma once

#include <cstdint>

namespace graft {

// The inner loops of the measurements, one table per instruction set (kernels/simd.h). Results are returned so that
// nothing is dropped.
struct MachineTable {
  float (*fma)(int64_t rounds) noexcept;  // kFmaChains independent chains of one vector each, `rounds` steps
  int fma_flops_per_round;
  uint32_t (*read)(const uint32_t* data, int64_t count) noexcept;  // count a multiple of 8 * 64
  // The loops of the bandwidth roofs (roofs.h): n floats, a multiple of 128; all pointers 64-byte aligned; `stream`: stores past the cache.
  float (*sum)(const float* a, int64_t n) noexcept;
  void (*copy)(const float* a, float* y, int64_t n, bool stream) noexcept;
  void (*triad)(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept;
  void (*write)(float* y, int64_t n, bool stream) noexcept;
  void (*update)(float* y, int64_t n) noexcept;                      // y = c y
  void (*accumulate)(const float* a, float* y, int64_t n) noexcept;  // y += c a
};

const MachineTable* machine_simd() noexcept;                    // null: scalar loops
float (*machine_bf16_dot() noexcept)(int64_t rounds) noexcept;  // null where the code does not exist
constexpr int kBf16DotFlopsPerRound = 24 * 16 * 2 * 2;          // 24 chains of 16 lanes, 2 products each

}  // namespace graft
