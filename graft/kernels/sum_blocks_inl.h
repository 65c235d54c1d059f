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

}  // namespace graft
