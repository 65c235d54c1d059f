#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Compaction: the kept elements of x one after the other in y, in their order, bits unchanged; returns how many. y has room for all N
// elements and does not overlap x or mask; behind the kept ones its content is unspecified. N < 2^32. Scratch: compact_scratch(N).
// One pass: the input is read once. Source: spec/kernels.md, sections 7 and 23.
ScratchNeed compact_scratch(int64_t n) noexcept;

// Keeps x > threshold, compared as real numbers; NaN is dropped.
uint32_t compact_if(Context& context, std::span<const float> x, double threshold, std::span<float> y) noexcept;
// Keeps x[i] where mask[i] is not 0.
uint32_t compact_mask(Context& context, std::span<const float> x, std::span<const uint8_t> mask,
                      std::span<float> y) noexcept;

// Predicate, scan of the predicate and scatter as one kernel: nothing but x is read and nothing but y written. That is compact_if.
inline uint32_t fused_scan_compact(Context& context, std::span<const float> x, double threshold,
                                   std::span<float> y) noexcept {
  return compact_if(context, x, threshold, y);
}

}  // namespace graft
