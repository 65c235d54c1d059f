#pragma once

// The scalar reference of the reductions (reduce_table.h). Compiled twice (ref.h).

#include <cmath>

#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/reduce_table.h"

namespace graft {
namespace {

float sum(const float* x, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + x[j]; });
}
float square_sum(const float* x, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return std::fma(x[j], x[j], lane); });
}
float abs_sum(const float* x, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + std::fabs(x[j]); });
}
float masked_sum(const float* x, const uint8_t* mask, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + (mask[j] != 0 ? x[j] : 0.0f); });
}
float centred_square_sum(const float* x, float centre, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return std::fma(x[j] - centre, x[j] - centre, lane); });
}
float max(const float* x, int64_t n) noexcept { return max_block(x, 0, n); }
// By lanes too, so that of zeros of both signs every variant returns the same one.
float min(const float* x, int64_t n) noexcept {
  float lanes[kSumLanes];
  std::fill(lanes, lanes + kSumLanes, -std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < n; ++j) lanes[j % kSumLanes] = max_or_nan(lanes[j % kSumLanes], -x[j]);
  for (int64_t width = kSumLanes / 2; width >= 1; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] = max_or_nan(lanes[i], lanes[i + width]);
  }
  return -lanes[0];
}
int64_t first_equal(const float* x, float value, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == value || (value != value && x[i] != x[i])) return i;
  }
  return n;
}
int64_t count_above(const float* x, float threshold, int64_t n) noexcept {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += x[i] > threshold ? 1 : 0;
  return count;
}
void histogram(const float* x, float low, float high, float scale, int64_t bins, uint32_t* counts, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] >= low && x[i] <= high)) continue;
    const auto bin = static_cast<int64_t>((x[i] - low) * scale);
    ++counts[bin < bins ? bin : bins - 1];
  }
}

constexpr ReduceTable kTable = {sum, square_sum, abs_sum,     masked_sum,  centred_square_sum,
                                max, min,        first_equal, count_above, histogram};

}  // namespace
}  // namespace graft
