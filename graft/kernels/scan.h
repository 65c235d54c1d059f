#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Prefix sums of u32 modulo 2^32, one over all of x; exact in any order. y has x's length and may be x. Empty stays empty.
// Scratch: scan_scratch(N). Source: spec/kernels.md, section 6.
ScratchNeed scan_scratch(int64_t n) noexcept;

// y[0] = 0, y[i] = x[0] + … + x[i - 1].
void scan_exclusive(Context& context, std::span<const uint32_t> x, std::span<uint32_t> y) noexcept;
// y[i] = x[0] + … + x[i].
void scan_inclusive(Context& context, std::span<const uint32_t> x, std::span<uint32_t> y) noexcept;

}  // namespace graft
