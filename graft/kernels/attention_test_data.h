#pragma once

// What the tests of attention share: a sequence with its keys, laid out in memory in every way the contract allows.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/random.h"
#include "graft/base/thread_pool.h"
#include "graft/kernels/attention.h"

namespace graft::test {

template <typename T>
std::vector<T> random_values(std::string_view name, uint64_t seed, int64_t count, double range = 1.0) {
  const RandomStream stream(seed, stream_hash(name));
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>((2 * stream.uniform53(i) - 1) * range);
  return values;
}

struct Shape {
  int64_t heads = 1, kv_heads = 1, head_dim = 16, window = 0;
};

// Queries at positions begin … length - 1 of a sequence of `length` keys.
template <typename T>
struct Sequence {
  int64_t length = 0, begin = 0;
  std::vector<T> q, k, v;  // [length, heads | kv_heads, head_dim]
};
template <typename T>
Sequence<T> make_sequence(const Shape& s, int64_t length, int64_t begin, uint64_t seed) {
  return {length, begin, random_values<T>("q", seed, length * s.heads * s.head_dim, 2),
          random_values<T>("k", seed, length * s.kv_heads * s.head_dim, 2),
          random_values<T>("v", seed, length * s.kv_heads * s.head_dim)};
}

enum class Layout { kRows, kSplitRows, kFeatureStride, kCache, kCacheThenRows };
constexpr Layout kLayouts[] = {Layout::kRows, Layout::kSplitRows, Layout::kFeatureStride, Layout::kCache,
                               Layout::kCacheThenRows};

// Memory for the keys of one sequence in one layout.
template <typename T>
struct Keys {
  std::vector<std::vector<T>> memory;
  std::vector<KeyRange<T>> ranges;
};

template <typename T>
KeyRange<T> row_range(Keys<T>& keys, const Shape& s, const Sequence<T>& sequence, int64_t begin, int64_t length,
                      int64_t gap, int64_t feature_stride) {
  const int64_t head = s.head_dim * feature_stride, token = s.kv_heads * head + gap;
  KeyRange<T> range;
  range.begin = begin;
  range.length = length;
  range.k_token_stride = range.v_token_stride = token;
  range.k_head_stride = range.v_head_stride = head;
  range.k_feature_stride = range.v_feature_stride = feature_stride;
  for (int which = 0; which < 2; ++which) {
    std::vector<T> memory(static_cast<size_t>(length * token), T(99));
    const std::vector<T>& from = which == 0 ? sequence.k : sequence.v;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t e = 0; e < s.kv_heads * s.head_dim; ++e) {
        memory[static_cast<size_t>(i * token + e * feature_stride)] =
            from[static_cast<size_t>((begin + i) * s.kv_heads * s.head_dim + e)];
      }
    }
    keys.memory.push_back(std::move(memory));
    (which == 0 ? range.k : range.v) = keys.memory.back().data();
  }
  return range;
}

template <typename T>
KeyRange<T> cache_range(Keys<T>& keys, Context& context, const Shape& s, const Sequence<T>& sequence, int64_t length) {
  const int64_t row = s.kv_heads * s.head_dim;
  std::vector<T> blocks(static_cast<size_t>((length + 63) / 64 * 64 * row), T(__builtin_nan(""))),
      rows(static_cast<size_t>(length * row));
  const int64_t first = length / 3;  // in two pieces, as prefill and decoding would
  for (const auto& [begin, n] : {std::pair{int64_t{0}, first}, std::pair{first, length - first}}) {
    append_to_cache<T>(context, View<const T, 3>(sequence.k.data() + begin * row, n, s.kv_heads, s.head_dim),
                       View<const T, 3>(sequence.v.data() + begin * row, n, s.kv_heads, s.head_dim), begin,
                       blocks.data(), rows.data());
  }
  keys.memory.push_back(std::move(blocks));
  keys.memory.push_back(std::move(rows));
  KeyRange<T> range;
  range.length = length;
  range.key_blocks = true;
  range.k = keys.memory[keys.memory.size() - 2].data();
  range.v = keys.memory.back().data();
  return range;
}

template <typename T>
Keys<T> lay_out(Context& context, const Shape& s, const Sequence<T>& sequence, Layout layout) {
  Keys<T> keys;
  keys.memory.reserve(64);
  const int64_t n = sequence.length;
  switch (layout) {
    case Layout::kRows: keys.ranges.push_back(row_range(keys, s, sequence, 0, n, 0, 1)); break;
    case Layout::kFeatureStride: keys.ranges.push_back(row_range(keys, s, sequence, 0, n, 3, 2)); break;
    case Layout::kSplitRows:
      for (int64_t at = 0, step = 1; at < n; step = step * 3 + 4) {
        const int64_t length = std::min(step, n - at);
        keys.ranges.push_back(row_range(keys, s, sequence, at, length, step % 5, 1));
        at += length;
      }
      break;
    case Layout::kCache: keys.ranges.push_back(cache_range(keys, context, s, sequence, n)); break;
    case Layout::kCacheThenRows: {
      const int64_t cached = std::min(sequence.begin, n);
      if (cached > 0) keys.ranges.push_back(cache_range(keys, context, s, sequence, cached));
      if (cached < n) keys.ranges.push_back(row_range(keys, s, sequence, cached, n - cached, 5, 1));
      break;
    }
  }
  return keys;
}

// A pool with its context, scratch reserved for what follows.
struct Runner {
  ThreadPool pool;
  Context context;
  explicit Runner(int threads) : pool(threads), context(pool) {}
};

template <typename T>
struct Attended {
  std::vector<T> o, lse;  // [rows, heads, head_dim], [rows, heads]
};

// All sequences in one call, in order.
template <typename T>
Attended<T> attend(Runner& runner, const Shape& s, const std::vector<const Sequence<T>*>& batch, Layout layout) {
  std::vector<Keys<T>> keys;
  std::vector<AttentionSequence<T>> sequences;
  std::vector<T> q;
  keys.reserve(batch.size());
  int64_t rows = 0, longest = 0;
  for (const Sequence<T>* sequence : batch) {
    keys.push_back(lay_out(runner.context, s, *sequence, layout));
    sequences.push_back({rows, sequence->length - sequence->begin, sequence->begin, keys.back().ranges});
    q.insert(q.end(), sequence->q.begin() + sequence->begin * s.heads * s.head_dim, sequence->q.end());
    rows += sequence->length - sequence->begin;
    longest = std::max(longest, sequence->length);
  }
  Attended<T> result;
  result.o.assign(q.size(), T(77));
  result.lse.assign(static_cast<size_t>(rows * s.heads), T(77));
  AttentionArgs<T> args;
  args.sequences = sequences;
  args.num_heads = s.heads;
  args.num_kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  args.window = s.window;
  args.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  args.q = View<const T, 3>(q.data(), rows, s.heads, s.head_dim);
  args.o = View<T, 3>(result.o.data(), rows, s.heads, s.head_dim);
  args.lse = View<T, 2>(result.lse.data(), rows, s.heads);
  runner.context.reserve(
      attention_scratch(runner.context.num_threads(), s.heads, s.kv_heads, s.head_dim, rows, longest));
  attention<T>(runner.context, args);
  return result;
}

template <typename T>
struct Gradients {
  std::vector<T> dq, dk, dv;
};

// Sequences one after the other: q, k, v, o, d_o [rows, heads | kv_heads, head_dim].
template <typename T>
struct TrainingBatch {
  std::vector<int32_t> offsets;
  std::vector<T> q, k, v, d_o, o, lse;
};
template <typename T>
TrainingBatch<T> make_batch(const Shape& s, const std::vector<int64_t>& lengths, uint64_t seed) {
  TrainingBatch<T> batch;
  batch.offsets.push_back(0);
  for (size_t i = 0; i < lengths.size(); ++i) {
    batch.offsets.push_back(batch.offsets.back() + static_cast<int32_t>(lengths[i]));
    const auto add = [&](std::vector<T>& to, const char* name, int64_t heads) {
      const std::vector<T> values = random_values<T>(name, seed + i, lengths[i] * heads * s.head_dim);
      to.insert(to.end(), values.begin(), values.end());
    };
    add(batch.q, "q", s.heads);
    add(batch.k, "k", s.kv_heads);
    add(batch.v, "v", s.kv_heads);
    add(batch.d_o, "do", s.heads);
  }
  return batch;
}

template <typename T>
void train_forward(Runner& runner, const Shape& s, TrainingBatch<T>& batch) {
  const int64_t rows = batch.offsets.back();
  std::vector<KeyRange<T>> ranges(batch.offsets.size() - 1);
  std::vector<AttentionSequence<T>> sequences;
  for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
    KeyRange<T>& range = ranges[i];
    range.length = batch.offsets[i + 1] - batch.offsets[i];
    range.k_token_stride = range.v_token_stride = s.kv_heads * s.head_dim;
    range.k_head_stride = range.v_head_stride = s.head_dim;
    range.k = batch.k.data() + batch.offsets[i] * range.k_token_stride;
    range.v = batch.v.data() + batch.offsets[i] * range.v_token_stride;
    sequences.push_back({batch.offsets[i], range.length, 0, std::span<const KeyRange<T>>(&range, 1)});
  }
  batch.o.assign(batch.q.size(), T(77));
  batch.lse.assign(static_cast<size_t>(rows * s.heads), T(77));
  AttentionArgs<T> args;
  args.sequences = sequences;
  args.num_heads = s.heads;
  args.num_kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  args.window = s.window;
  args.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  args.q = View<const T, 3>(batch.q.data(), rows, s.heads, s.head_dim);
  args.o = View<T, 3>(batch.o.data(), rows, s.heads, s.head_dim);
  args.lse = View<T, 2>(batch.lse.data(), rows, s.heads);
  runner.context.reserve(attention_scratch(runner.context.num_threads(), s.heads, s.kv_heads, s.head_dim, rows, rows));
  attention<T>(runner.context, args);
}

template <typename T>
Gradients<T> train_backward(Runner& runner, const Shape& s, const TrainingBatch<T>& batch) {
  const int64_t rows = batch.offsets.back();
  Gradients<T> g{std::vector<T>(batch.q.size(), T(77)), std::vector<T>(batch.k.size(), T(77)),
                 std::vector<T>(batch.v.size(), T(77))};
  AttentionBackwardArgs<T> args;
  args.sequence_offsets = batch.offsets;
  args.num_heads = s.heads;
  args.num_kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  args.window = s.window;
  args.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  args.q = View<const T, 3>(batch.q.data(), rows, s.heads, s.head_dim);
  args.k = View<const T, 3>(batch.k.data(), rows, s.kv_heads, s.head_dim);
  args.v = View<const T, 3>(batch.v.data(), rows, s.kv_heads, s.head_dim);
  args.o = View<const T, 3>(batch.o.data(), rows, s.heads, s.head_dim);
  args.d_o = View<const T, 3>(batch.d_o.data(), rows, s.heads, s.head_dim);
  args.lse = batch.lse;
  args.dq = View<T, 3>(g.dq.data(), rows, s.heads, s.head_dim);
  args.dk = View<T, 3>(g.dk.data(), rows, s.kv_heads, s.head_dim);
  args.dv = View<T, 3>(g.dv.data(), rows, s.kv_heads, s.head_dim);
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
    longest = std::max<int64_t>(longest, batch.offsets[i + 1] - batch.offsets[i]);
  }
  runner.context.reserve(
      attention_backward_scratch(runner.context.num_threads(), s.heads, s.kv_heads, s.head_dim, rows, longest));
  attention_backward<T>(runner.context, args);
  return g;
}

}  // namespace graft::test
