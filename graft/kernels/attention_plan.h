#pragma once

#include <cstdint>

#include "graft/kernels/attention_table.h"

namespace graft {

// How the vector version of attention cuts a call into tasks. Bits never depend on it.
//   tile:  a sequence of kTileRows query rows or more: one task per head and block of 64 positions; lanes lie over
//     query rows
//   rows:  fewer rows (decoding): one task per key/value head, all its query heads at once; lanes lie over keys, then
//     over features.
//          Where such tasks are too few for the threads, one per span of keys, and a second pass merges the spans.
struct AttentionPlanEntry {
  int64_t sequence = 0;
  int64_t first_task = 0, first_merge = 0;
  int64_t first_block = 0, num_blocks = 0;  // tile: query blocks by position
  int64_t first_span = 0, num_spans = 0;    // rows: spans that any row sees
  int64_t partial = 0;                      // rows, split: floats before its states in the shared scratch
  bool tile = false;
};

struct AttentionPlan {
  const AttentionPlanEntry* entries = nullptr;
  int64_t num_entries = 0, num_tasks = 0, num_merges = 0;
  bool split = false;
  float* partials = nullptr;  // states [kv_head][span][row][head of group]: m, l, o[padded]
  // The entry that a task (or merge) belongs to.
  const AttentionPlanEntry& entry_of_task(int64_t task) const noexcept;
  const AttentionPlanEntry& entry_of_merge(int64_t merge) const noexcept;
};

constexpr int64_t kTileRows = 8;  // below this many query rows, 16 lanes of queries would be mostly empty

// Lies at the start of the shared scratch.
template <typename S>
AttentionPlan plan_attention(Context& context, const AttentionArgs<float, S>& args) noexcept;

// Features of a state or scratch row, padded to whole vectors of any target.
constexpr int64_t padded_features(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
// m, l, padding, o[padded]
constexpr int64_t state_floats(int64_t head_dim) { return 16 + padded_features(head_dim); }

// Floats of scratch that a worker of the vector versions needs.
int64_t attention_worker_floats(int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) noexcept;
int64_t attention_backward_worker_floats(int64_t head_dim) noexcept;

// Whether the backward runs one task per query head, whose dk and dv are then summed over the heads of a group (else
// per kv head).
bool attention_backward_by_head(int num_threads, int64_t num_heads, int64_t num_kv_heads,
                                int64_t num_sequences) noexcept;

}  // namespace graft
