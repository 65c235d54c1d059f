#pragma once

#include <cstdint>

namespace graft {

struct Split {
  int64_t low;      // how many x <= low
  int64_t between;  // how many low < x < high
  bool nan;         // whether x has one
};

// What select.cc runs on a part.
struct SelectTable {
  // Keeps low < x < high, in order, at the front of `kept`, which has room for all n and may be x.
  Split (*split)(const float* x, int64_t n, float low, float high, float* kept) noexcept;
  // The indices first + i of what is not below `low`, NaN included, to `kept` (room for n); how many.
  int64_t (*not_below)(const float* x, int64_t n, float low, int32_t first, int32_t* kept) noexcept;
};
const SelectTable& select_ref() noexcept;
const SelectTable* select_simd() noexcept;  // null: run the reference

}  // namespace graft
