#pragma once

#include <cstddef>
#include <cstdint>

#include "graft/base/float16.h"
#include "graft/kernels/attention.h"

namespace graft {

struct AttentionForwards {
  void (*stored_f32)(Context&, const AttentionArgs<float>&) noexcept;
  void (*stored_f16)(Context&, const AttentionArgs<float, f16>&) noexcept;
};
using AttentionBackward = void (*)(Context&, const AttentionBackwardArgs<float>&) noexcept;

// Scores of blocks of 64 keys, for fused_rope_attention_mask.
struct AttentionScores {
  // to[e][j] = from[j][e] for j < rows <= 64, e < d, and 0 for the other columns of 64.
  void (*lay_keys)(const float* from, int64_t rows, int64_t d, float* to) noexcept;
  // to[i][j] = scale * (chain of fma(q[i][e], keys[e][j]) for e ascending from +0) for i < rows and all 64 j.
  void (*score)(const float* q, int64_t rows, int64_t d, const float* keys, float scale, float* to,
                int64_t to_row) noexcept;
};

// The two builds of the scalar reference.
struct AttentionTable {
  AttentionForwards forward;
  AttentionBackward backward;
  AttentionScores scores;
};
const AttentionTable& attention_reference() noexcept;  // attention_ref.cc
const AttentionTable& attention_fma() noexcept;        // attention_fma.cc: the same source with the instruction

// The vector versions; null where the level in force has none.
const AttentionForwards* attention_simd() noexcept;  // attention_simd.cc
const AttentionScores* attention_scores_simd() noexcept;
AttentionBackward attention_backward_simd() noexcept;  // attention_backward_simd.cc

// Boundaries of arithmetic (attention.h): keys of a block, keys of a span.
constexpr int64_t kKeyBlock = 64, kKeySpan = 512;

}  // namespace graft
