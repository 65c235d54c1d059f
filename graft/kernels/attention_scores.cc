// fused_rope_attention_mask: keys are turned once and laid as the key cache is, [H][blocks][D][64]; then each block of 64
// queries is turned and multiplied by the key blocks it sees.

#include <algorithm>
#include <cassert>
#include <limits>

#include "graft/kernels/attention_dense.h"
#include "graft/kernels/attention_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rope_table.h"

namespace graft {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

const AttentionScores& functions() noexcept {
  if (const AttentionScores* simd = attention_scores_simd()) return *simd;
  return pick_reference(attention_reference(), attention_fma()).scores;
}

int64_t blocks_of(int64_t length) noexcept { return (length + kKeyBlock - 1) / kKeyBlock; }

// Rows [begin, begin + count) of one head, turned by their positions.
void turn_rows(const float* head, View<const float, 2> cos, View<const float, 2> sin, int64_t begin, int64_t count,
               float* to) noexcept {
  const RopeRowFunction turn = rope_row_function();
  RopeRow<float> row;
  row.heads = 1, row.half = cos.extent(1), row.head_dim = 2 * row.half;
  for (int64_t i = 0; i < count; ++i) {
    row.x = head + (begin + i) * row.head_dim, row.y = to + i * row.head_dim;
    row.cos = cos.row(begin + i), row.sin = sin.row(begin + i);
    turn(row);
  }
}

}  // namespace

ScratchNeed fused_rope_attention_mask_scratch(int64_t num_heads, int64_t length, int64_t head_dim) {
  return {.shared = static_cast<size_t>(num_heads * blocks_of(length) * kKeyBlock * head_dim) * sizeof(float),
          .per_worker = static_cast<size_t>(kKeyBlock * (head_dim + kKeyBlock)) * sizeof(float)};
}

void fused_rope_attention_mask(Context& context, View<const float, 3> q, View<const float, 3> k,
                               View<const float, 2> cos, View<const float, 2> sin, double scale,
                               View<float, 3> scores) noexcept {
  const AttentionScores& f = functions();
  const int64_t heads = q.extent(0), length = q.extent(1), d = q.extent(2), blocks = blocks_of(length);
  assert(d == 2 * cos.extent(1) && q.contiguous() && k.contiguous() && scores.contiguous());
  auto* const laid = context.shared<float>();
  const auto keys = [&](int64_t head, int64_t block) { return laid + (head * blocks + block) * kKeyBlock * d; };
  context.pool().parallel(heads * blocks, [&](int64_t task, int worker) {
    const int64_t head = task / blocks, block = task % blocks, begin = block * kKeyBlock;
    const int64_t count = std::min(kKeyBlock, length - begin);
    auto* const turned = context.worker<float>(worker);
    turn_rows(k.row(head), cos, sin, begin, count, turned);
    f.lay_keys(turned, count, d, keys(head, block));
  });
  context.pool().parallel(heads * blocks, [&](int64_t task, int worker) {
    // The last queries see most keys: they go first.
    const int64_t head = task % heads, block = blocks - 1 - task / heads, begin = block * kKeyBlock;
    const int64_t count = std::min(kKeyBlock, length - begin);
    auto* const turned = context.worker<float>(worker);
    float* const diagonal = turned + kKeyBlock * d;  // [64][64]
    turn_rows(q.row(head), cos, sin, begin, count, turned);
    float* const to = scores.row(head) + begin * length;
    for (int64_t b = 0; b < block; ++b) {
      f.score(turned, count, d, keys(head, b), static_cast<float>(scale), to + b * kKeyBlock, length);
    }
    f.score(turned, count, d, keys(head, block), static_cast<float>(scale), diagonal, kKeyBlock);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(diagonal + i * kKeyBlock, i + 1, to + i * length + begin);
      std::fill(to + i * length + begin + i + 1, to + (i + 1) * length, kMasked);
    }
  });
}

}  // namespace graft
