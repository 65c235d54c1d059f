#pragma once

#include <cstddef>
#include <cstdint>

#include "graft/kernels/attention.h"

namespace graft {

using AttentionForward = void (*)(Context&, const AttentionArgs<float>&) noexcept;
using AttentionBackward = void (*)(Context&, const AttentionBackwardArgs<float>&) noexcept;

// The two builds of the scalar reference.
struct AttentionTable {
  AttentionForward forward;
  AttentionBackward backward;
};
const AttentionTable& attention_reference() noexcept;  // attention_ref.cc
const AttentionTable& attention_fma() noexcept;        // attention_fma.cc: the same source with the instruction

// The vector versions; null where the level in force has none.
AttentionForward attention_simd() noexcept;            // attention_simd.cc
AttentionBackward attention_backward_simd() noexcept;  // attention_backward_simd.cc

// Boundaries of arithmetic (attention.h): keys of a block, keys of a span.
constexpr int64_t kKeyBlock = 64, kKeySpan = 512;

}  // namespace graft
