#pragma once

// Shared by the families that reduce long vectors: blocks of 4,096 elements, spread over the threads in one fixed partition.

#include <algorithm>
#include <cstdint>

#include "graft/kernels/context.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {

inline int64_t num_sum_blocks(int64_t n) noexcept { return (n + kSumBlock - 1) / kSumBlock; }

// f(block, begin, size) for every block of n elements; few blocks stay on this thread, without the pool.
template <typename F>
void for_sum_blocks(Context& context, int64_t n, F&& f) noexcept {
  constexpr int64_t kTaskBlocks = 4;
  const int64_t blocks = num_sum_blocks(n);
  const auto some = [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) f(b, b * kSumBlock, std::min(kSumBlock, n - b * kSumBlock));
  };
  if (blocks <= kTaskBlocks) return some(0, blocks);
  context.pool().parallel((blocks + kTaskBlocks - 1) / kTaskBlocks, [&](int64_t task, int) {
    some(task * kTaskBlocks, std::min(blocks, (task + 1) * kTaskBlocks));
  });
}

// The mean and the sum of (x - mean)^2 from each block's sum and its sum of squares about c_b, the rounded mean of the block. About any c:
// sum (x - c)^2 = M2 + size (mean - c)^2, so M2 is exact in c_b. Blocks are merged by Chan's rule.
struct MergedMoments {
  double mean, m2;
};
inline MergedMoments merged_moments(const float* sums, const float* squares, int64_t n) noexcept {
  double mean = 0, m2 = 0, count = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) {
    const auto size = static_cast<double>(std::min(kSumBlock, n - b * kSumBlock));
    const double block_mean = static_cast<double>(sums[b]) / size;
    const double centre = static_cast<double>(sums[b] / static_cast<float>(size));
    const double block_m2 = static_cast<double>(squares[b]) - size * (block_mean - centre) * (block_mean - centre);
    const double delta = block_mean - mean, both = count + size;
    mean += delta * size / both;
    m2 += block_m2 + delta * delta * count * size / both;
    count = both;
  }
  return {mean, std::max(m2, 0.0)};
}

}  // namespace graft
