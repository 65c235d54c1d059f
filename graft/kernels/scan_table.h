#pragma once

#include <cstdint>

namespace graft {

// What scan.cc runs on a part.
struct ScanTable {
  uint32_t (*sum)(const uint32_t* x, int64_t n) noexcept;
  // Prefix sums that start at `carry`; returns what they end at. `stream`: y leaves the cache.
  uint32_t (*inclusive)(const uint32_t* x, uint32_t* y, int64_t n, uint32_t carry, bool stream) noexcept;
  uint32_t (*exclusive)(const uint32_t* x, uint32_t* y, int64_t n, uint32_t carry, bool stream) noexcept;
};
const ScanTable& scan_ref() noexcept;
const ScanTable* scan_simd() noexcept;  // null: run the reference

}  // namespace graft
