#pragma once

#include <cstddef>
#include <cstdint>

#include "graft/kernels/attention.h"

namespace graft {

// One implementation of the family in f32.
struct AttentionTable {
  void (*forward)(Context&, const AttentionArgs<float>&) noexcept;
  void (*backward)(Context&, const AttentionBackwardArgs<float>&) noexcept;
};
const AttentionTable& attention_reference() noexcept;  // attention_ref.cc
const AttentionTable& attention_fma() noexcept;        // attention_fma.cc: the same source with the instruction
const AttentionTable* attention_simd() noexcept;       // attention_simd.cc; null where the level in force has no vector version

// Boundaries of arithmetic (attention.h): keys of a block, keys of a span.
constexpr int64_t kKeyBlock = 64, kKeySpan = 512;

}  // namespace graft
