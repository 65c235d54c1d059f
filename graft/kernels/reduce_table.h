#pragma once

#include <cstdint>

namespace graft {

constexpr int64_t kHistogramCopies = 4;  // of the counts, so that equal neighbours do not wait for each other

// What reduce.cc runs on one block of at most 4,096 elements (histogram: on any range).
struct ReduceTable {
  float (*sum)(const float* x, int64_t n) noexcept;
  float (*square_sum)(const float* x, int64_t n) noexcept;
  float (*abs_sum)(const float* x, int64_t n) noexcept;
  float (*masked_sum)(const float* x, const uint8_t* mask, int64_t n) noexcept;
  float (*centred_square_sum)(const float* x, float centre, int64_t n) noexcept;  // sum of (x - centre)^2
  float (*max)(const float* x, int64_t n) noexcept;
  float (*min)(const float* x, int64_t n) noexcept;
  int64_t (*first_equal)(const float* x, float value,
                         int64_t n) noexcept;  // the first x = value, or NaN where value is; n if none
  int64_t (*count_above)(const float* x, float threshold, int64_t n) noexcept;
  // counts: kHistogramCopies rows of `bins`; element i may be counted in any of them.
  void (*histogram)(const float* x, float low, float high, float scale, int64_t bins, uint32_t* counts,
                    int64_t n) noexcept;
};
const ReduceTable& reduce_ref() noexcept;
const ReduceTable& reduce_fma_ref() noexcept;
const ReduceTable* reduce_simd() noexcept;  // null: run the reference

}  // namespace graft
