#include "graft/kernels/attention_plan.h"

#include <algorithm>

namespace graft {
namespace {

// Fewer tasks than this per thread are worth splitting.
constexpr int64_t kTasksPerThread = 2;
// Most scratch for the states of split decoding; calls that need more are not split. Enough for one token of 32 heads
// of 128 features at 900,000 keys.
constexpr size_t kMostPartialBytes = size_t{32} << 20;

int64_t first_seen(int64_t window, int64_t position) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

template <typename Key>
const AttentionPlanEntry& last_not_above(const AttentionPlan& plan, int64_t value, Key key) {
  int64_t low = 0, high = plan.num_entries - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (key(plan.entries[middle]) <= value) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return plan.entries[low];
}

size_t bytes_of_entries(int64_t rows) {
  return (static_cast<size_t>(rows) * sizeof(AttentionPlanEntry) + 63) / 64 * 64;
}

}  // namespace

const AttentionPlanEntry& AttentionPlan::entry_of_task(int64_t task) const noexcept {
  return last_not_above(*this, task, [](const AttentionPlanEntry& e) { return e.first_task; });
}
const AttentionPlanEntry& AttentionPlan::entry_of_merge(int64_t merge) const noexcept {
  return last_not_above(*this, merge, [](const AttentionPlanEntry& e) { return e.first_merge; });
}

template <typename S>
AttentionPlan plan_attention(Context& context, const AttentionArgs<float, S>& args) noexcept {
  AttentionPlan plan;
  auto* entries = context.shared<AttentionPlanEntry>();
  int64_t rows = 0, tasks = 0, partial_floats = 0;
  for (size_t i = 0; i < args.sequences.size(); ++i) {
    const AttentionSequence<S>& sequence = args.sequences[i];
    if (sequence.num_rows == 0) continue;
    AttentionPlanEntry e;
    e.sequence = static_cast<int64_t>(i);
    e.tile = sequence.num_rows >= kTileRows;
    const int64_t last = sequence.position_begin + sequence.num_rows - 1;
    e.first_block = sequence.position_begin / kKeyBlock;
    e.num_blocks = last / kKeyBlock - e.first_block + 1;
    e.first_span = first_seen(args.window, sequence.position_begin) / kKeySpan;
    e.num_spans = (sequence.end_of_keys(last) - 1) / kKeySpan - e.first_span + 1;
    e.partial = partial_floats;
    if (!e.tile && e.num_spans > 1) {
      partial_floats += sequence.num_rows * args.num_heads * e.num_spans * state_floats(args.head_dim);
    }
    tasks += e.tile ? e.num_blocks * args.num_heads : args.num_kv_heads;
    rows += sequence.num_rows;
    entries[plan.num_entries++] = e;
  }
  plan.entries = entries;
  const size_t split_bytes = bytes_of_entries(rows) + static_cast<size_t>(partial_floats) * sizeof(float);
  plan.split = partial_floats > 0 && context.num_threads() > 1 && tasks < kTasksPerThread * context.num_threads() &&
               split_bytes <= context.reserved().shared;
  plan.partials = reinterpret_cast<float*>(context.shared<std::byte>() + bytes_of_entries(rows));
  for (int64_t i = 0; i < plan.num_entries; ++i) {
    AttentionPlanEntry& e = entries[i];
    e.first_task = plan.num_tasks;
    e.first_merge = plan.num_merges;
    if (e.tile) {
      plan.num_tasks += e.num_blocks * args.num_heads;
    } else if (!plan.split || e.num_spans == 1) {
      plan.num_tasks += args.num_kv_heads;
    } else {
      plan.num_tasks += args.num_kv_heads * e.num_spans;
      plan.num_merges += args.num_kv_heads;
    }
  }
  return plan;
}

template AttentionPlan plan_attention(Context&, const AttentionArgs<float>&) noexcept;
template AttentionPlan plan_attention(Context&, const AttentionArgs<float, f16>&) noexcept;

int64_t attention_worker_floats(int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) noexcept {
  const int64_t block = kKeyBlock * padded_features(head_dim), group = num_heads / num_kv_heads;
  const int64_t tile = 5 * block + kKeyBlock * kKeyBlock + 6 * kKeyBlock;
  const int64_t rows = 2 * block + 2 * (kTileRows - 1) * group * state_floats(head_dim) +
                       group * (kKeyBlock + padded_features(head_dim)) + (group + 15) / 16 * 16;
  return std::max(tile, rows);
}

int64_t attention_backward_worker_floats(int64_t head_dim) noexcept {
  return 10 * kKeyBlock * padded_features(head_dim) + 2 * kKeyBlock * kKeyBlock;
}

bool attention_backward_by_head(int num_threads, int64_t num_heads, int64_t num_kv_heads,
                                int64_t num_sequences) noexcept {
  return num_threads > 1 && num_heads > num_kv_heads && num_sequences * num_kv_heads < kTasksPerThread * num_threads;
}

ScratchNeed attention_scratch(int num_threads, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t rows,
                              int64_t max_length) {
  ScratchNeed need;
  const size_t worker_floats = static_cast<size_t>(attention_worker_floats(num_heads, num_kv_heads, head_dim));
  need.per_worker = std::max(worker_floats * sizeof(float), static_cast<size_t>(2 * head_dim) * sizeof(double));
  need.shared = bytes_of_entries(rows);
  if (num_threads > 1) {  // states of split decoding: few sequences of few rows
    const int64_t most_sequences = (kTasksPerThread * num_threads + num_kv_heads - 1) / num_kv_heads;
    const int64_t split_rows = std::min(rows, most_sequences * (kTileRows - 1)),
                  spans = (max_length + kKeySpan - 1) / kKeySpan;
    const auto floats = static_cast<size_t>(split_rows * num_heads * spans * state_floats(head_dim));
    need.shared += std::min(floats * sizeof(float), kMostPartialBytes);
  }
  return need;
}

ScratchNeed attention_backward_scratch(int num_threads, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                       int64_t rows, int64_t max_length) {
  ScratchNeed need;
  const size_t worker_floats = static_cast<size_t>(attention_backward_worker_floats(head_dim));
  need.per_worker = std::max(worker_floats * sizeof(float), static_cast<size_t>(6 * head_dim) * sizeof(double));
  need.shared = static_cast<size_t>(rows * num_heads) * sizeof(double);
  if (attention_backward_by_head(num_threads, num_heads, num_kv_heads, 1)) {  // then the sequences are few
    const int64_t most_sequences = (kTasksPerThread * num_threads - 1) / num_kv_heads;
    const int64_t split_rows = std::min(rows, most_sequences * max_length);
    const int64_t floats = rows * num_heads + 16 + split_rows * num_heads * 2 * padded_features(head_dim);
    need.shared = std::max(need.shared, static_cast<size_t>(floats) * sizeof(float));
  }
  return need;
}

}  // namespace graft
