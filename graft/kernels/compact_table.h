#pragma once

#include <cstdint>

namespace graft {

// What compact.cc runs on a part: how many elements are kept, and the kept elements to y, of which `room` may be written
// (at least as many as are kept; where that is more, what lies behind them may change). `stream`: y leaves the cache.
struct CompactTable {
  int64_t (*count_above)(const float* x, float threshold, int64_t n) noexcept;
  int64_t (*count_mask)(const uint8_t* mask, int64_t n) noexcept;
  int64_t (*keep_above)(const float* x, float threshold, int64_t n, float* y, int64_t room, bool stream) noexcept;
  int64_t (*keep_mask)(const float* x, const uint8_t* mask, int64_t n, float* y, int64_t room, bool stream) noexcept;
};
const CompactTable& compact_ref() noexcept;
const CompactTable* compact_simd() noexcept;  // null: run the reference

}  // namespace graft
