#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Sorting, ascending. Outputs have the length of the inputs and do not overlap them; N < 2^32. Results are unique but for the bits
// of NaN, and the same for any number of threads. The radix sort of radix_inl.h serves all three: digits of 8 bits, those that all keys share
// are skipped, so up to four passes. Scratch: sort_scratch(N). Source: spec/kernels.md, section 12.
ScratchNeed sort_scratch(int64_t n) noexcept;

// u32 keys.
void sort_radix(Context& context, std::span<const uint32_t> keys, std::span<uint32_t> sorted) noexcept;
// Stable: the values of equal keys keep their order.
void sort_radix(Context& context, std::span<const uint32_t> keys, std::span<const uint32_t> values,
                std::span<uint32_t> sorted_keys, std::span<uint32_t> sorted_values) noexcept;

// f32, -0 before +0, NaN last (all as one quiet NaN). Any N. What a bitonic network would return.
void sort_bitonic(Context& context, std::span<const float> x, std::span<float> y) noexcept;
// (key, value) compared as a pair: keys as numbers (-0 = +0, every NaN alike and last), then values. With value = index this is a stable
// argsort. A zero keeps its sign.
void sort_bitonic_kv(Context& context, std::span<const float> keys, std::span<const uint32_t> values,
                     std::span<float> sorted_keys, std::span<uint32_t> sorted_values) noexcept;

}  // namespace graft
