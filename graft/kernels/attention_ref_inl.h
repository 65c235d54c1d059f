#pragma once

// The scalar reference of attention.h: plain loops, the meaning of the contract. Included by attention_ref.cc and by
// attention_fma.cc only; everything here has internal linkage, so that code compiled with -mfma is never shared with
// the rest of the program.

#include "graft/kernels/attention_table.h"
#include "graft/kernels/math.h"

namespace graft {
namespace {

inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(f16 x) { return to_float(x); }
inline float exponential(float x) { return exp_f32(x); }
inline double exponential(double x) { return exp_f64(x); }
inline float logarithm(float x) { return log_f32(x); }
inline double logarithm(double x) { return log_f64(x); }

// NaN wins, and stays.
template <typename T>
T larger(T m, T x) {
  return x > m || x != x ? x : m;
}

// 64 lanes, +32 … +1. Destroys the lanes.
template <typename T>
T tree_sum(T* lanes) {
  for (int64_t step = 32; step > 0; step /= 2) {
    for (int64_t i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}

template <typename T>
struct Features {
  const T* data;
  int64_t stride;
};

template <typename T>
const KeyRange<T>& range_of(const AttentionSequence<T>& sequence, int64_t position) {
  size_t i = 0;
  while (position >= sequence.ranges[i].begin + sequence.ranges[i].length) ++i;
  return sequence.ranges[i];
}

template <typename T, typename S>
Features<S> key_of(const AttentionArgs<T, S>& args, const AttentionSequence<S>& sequence, int64_t position,
                   int64_t kv_head) {
  const KeyRange<S>& range = range_of(sequence, position);
  const int64_t i = position - range.begin;
  if (!range.key_blocks) {
    return {range.k + i * range.k_token_stride + kv_head * range.k_head_stride, range.k_feature_stride};
  }
  return {range.k + ((i / kKeyBlock) * args.num_kv_heads + kv_head) * args.head_dim * kKeyBlock + i % kKeyBlock,
          kKeyBlock};
}

template <typename T, typename S>
Features<S> value_of(const AttentionArgs<T, S>& args, const AttentionSequence<S>& sequence, int64_t position,
                     int64_t kv_head) {
  const KeyRange<S>& range = range_of(sequence, position);
  const int64_t i = position - range.begin;
  if (!range.key_blocks) {
    return {range.v + i * range.v_token_stride + kv_head * range.v_head_stride, range.v_feature_stride};
  }
  return {range.v + (i * args.num_kv_heads + kv_head) * args.head_dim, 1};
}

// Running maximum, sum and value sum over keys of one span.
template <typename T>
struct SpanState {
  T m, l;
  T* o;
};

template <typename T, typename S>
void attend_row(const AttentionArgs<T, S>& args, const AttentionSequence<S>& sequence, int64_t i, int64_t head,
                T* scratch) {
  const int64_t d = args.head_dim, row = sequence.row_begin + i, position = sequence.position_begin + i;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const S* q = args.q.data() + row * args.q.stride(0) + head * args.q.stride(1);
  const int64_t q_stride = args.q.stride(2);
  const T scale = static_cast<T>(args.scale), infinity = static_cast<T>(__builtin_inf());
  const int64_t first = args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
  const int64_t keys_end = sequence.end_of_keys(position);

  SpanState<T> total{-infinity, T(0), scratch}, span{-infinity, T(0), scratch + d};
  bool have_total = false;
  T s[kKeyBlock], lanes[kKeyBlock];
  for (int64_t span_begin = first / kKeySpan * kKeySpan; span_begin < keys_end; span_begin += kKeySpan) {
    span.m = -infinity;
    span.l = 0;
    for (int64_t e = 0; e < d; ++e) span.o[e] = 0;
    for (int64_t block = span_begin; block < span_begin + kKeySpan && block < keys_end; block += kKeyBlock) {
      if (block + kKeyBlock <= first) continue;
      const int64_t begin = first > block ? first : block;
      const int64_t end = keys_end < block + kKeyBlock ? keys_end : block + kKeyBlock;
      T m = span.m;
      for (int64_t j = begin; j < end; ++j) {
        const Features<S> k = key_of(args, sequence, j, kv_head);
        T dot = 0;
        for (int64_t e = 0; e < d; ++e) dot = fused(widen(q[e * q_stride]), widen(k.data[e * k.stride]), dot);
        s[j - block] = scale * dot;
        m = larger(m, s[j - block]);
      }
      for (int64_t j = 0; j < kKeyBlock; ++j) lanes[j] = 0;
      for (int64_t j = begin; j < end; ++j) lanes[j - block] = s[j - block] = exponential(s[j - block] - m);
      const T c = exponential(span.m - m);
      span.l = span.l * c + tree_sum(lanes);
      span.m = m;
      for (int64_t e = 0; e < d; ++e) span.o[e] *= c;
      for (int64_t j = begin; j < end; ++j) {
        const Features<S> v = value_of(args, sequence, j, kv_head);
        for (int64_t e = 0; e < d; ++e) span.o[e] = fused(s[j - block], widen(v.data[e * v.stride]), span.o[e]);
      }
    }
    if (!have_total) {
      T* const o = total.o;
      total = span;
      span.o = o;
      have_total = true;
      continue;
    }
    const T m = larger(total.m, span.m), a = exponential(total.m - m), b = exponential(span.m - m);
    total.l = total.l * a + span.l * b;
    for (int64_t e = 0; e < d; ++e) total.o[e] = total.o[e] * a + span.o[e] * b;
    total.m = m;
  }
  T* o = args.o.data() + row * args.o.stride(0) + head * args.o.stride(1);
  for (int64_t e = 0; e < d; ++e) o[e * args.o.stride(2)] = total.o[e] / total.l;
  if (args.lse.data() != nullptr) {
    args.lse.data()[row * args.lse.stride(0) + head * args.lse.stride(1)] = total.m + logarithm(total.l);
  }
}

template <typename T, typename S>
void attention_plain(Context& context, const AttentionArgs<T, S>& args) noexcept {
  const int64_t heads = args.num_heads;
  context.pool().parallel(static_cast<int64_t>(args.sequences.size()) * heads, [&](int64_t task, int worker) {
    const AttentionSequence<S>& sequence = args.sequences[static_cast<size_t>(task / heads)];
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      attend_row(args, sequence, i, task % heads, context.worker<T>(worker));
    }
  });
}

inline void lay_keys(const float* from, int64_t rows, int64_t d, float* to) noexcept {
  for (int64_t e = 0; e < d; ++e) {
    for (int64_t j = 0; j < kKeyBlock; ++j) to[e * kKeyBlock + j] = j < rows ? from[j * d + e] : 0;
  }
}

inline void score_block(const float* q, int64_t rows, int64_t d, const float* keys, float scale, float* to,
                        int64_t to_row) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kKeyBlock; ++j) {
      float dot = 0;
      for (int64_t e = 0; e < d; ++e) dot = fused(q[i * d + e], keys[e * kKeyBlock + j], dot);
      to[i * to_row + j] = scale * dot;
    }
  }
}

template <typename T>
Features<T> at(const View<const T, 3>& x, int64_t row, int64_t head) {
  return {x.data() + row * x.stride(0) + head * x.stride(1), x.stride(2)};
}

template <typename T>
T dot_of(Features<T> a, Features<T> b, int64_t d) {
  T sum = 0;
  for (int64_t e = 0; e < d; ++e) sum = fused(a.data[e * a.stride], b.data[e * b.stride], sum);
  return sum;
}

// p and ds of one (query row, key row, head).
template <typename T>
struct Weights {
  T p, ds;
};
template <typename T>
Weights<T> weights_of(const AttentionBackwardArgs<T>& args, const T* delta, int64_t query, int64_t key, int64_t head) {
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads), at_lse = query * args.num_heads + head;
  const T s = static_cast<T>(args.scale) * dot_of(at(args.q, query, head), at(args.k, key, kv_head), args.head_dim);
  const T p = exponential(s - args.lse.data()[at_lse]);
  return {p, p * (dot_of(at(args.d_o, query, head), at(args.v, key, kv_head), args.head_dim) - delta[at_lse])};
}

template <typename T>
void delta_row(const AttentionBackwardArgs<T>& args, int64_t row, int64_t head, T* delta) {
  const Features<T> a = at(args.d_o, row, head), b = at(args.o, row, head);
  T lanes[64] = {};
  for (int64_t e = 0; e < args.head_dim; ++e) {
    lanes[e % 64] = fused(a.data[e * a.stride], b.data[e * b.stride], lanes[e % 64]);
  }
  delta[row * args.num_heads + head] = tree_sum(lanes);
}

// dq of one head of a sequence; rows [begin, end). block: [head_dim].
template <typename T>
void dq_of_head(const AttentionBackwardArgs<T>& args, const T* delta, int64_t begin, int64_t end, int64_t head,
                T* block, T* total) {
  const int64_t d = args.head_dim, kv_head = head / (args.num_heads / args.num_kv_heads);
  for (int64_t query = begin; query < end; ++query) {
    const int64_t position = query - begin;
    const int64_t first = args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
    for (int64_t e = 0; e < d; ++e) total[e] = 0;
    for (int64_t key_block = first / kKeyBlock * kKeyBlock; key_block <= position; key_block += kKeyBlock) {
      for (int64_t e = 0; e < d; ++e) block[e] = 0;
      for (int64_t j = key_block > first ? key_block : first; j < key_block + kKeyBlock && j <= position; ++j) {
        const T ds = weights_of(args, delta, query, begin + j, head).ds;
        const Features<T> k = at(args.k, begin + j, kv_head);
        for (int64_t e = 0; e < d; ++e) block[e] = fused(ds, k.data[e * k.stride], block[e]);
      }
      for (int64_t e = 0; e < d; ++e) total[e] += block[e];
    }
    T* dq = args.dq.data() + query * args.dq.stride(0) + head * args.dq.stride(1);
    for (int64_t e = 0; e < d; ++e) dq[e * args.dq.stride(2)] = static_cast<T>(args.scale) * total[e];
  }
}

// dk and dv of one key; rows [begin, end) are its sequence. scratch: [6 * head_dim].
template <typename T>
void dkv_of_key(const AttentionBackwardArgs<T>& args, const T* delta, int64_t begin, int64_t end, int64_t key,
                int64_t kv_head, T* scratch) {
  const int64_t d = args.head_dim, group = args.num_heads / args.num_kv_heads, position = key - begin;
  T *dk = scratch, *dv = scratch + d, *head_dk = scratch + 2 * d, *head_dv = scratch + 3 * d,
    *block_dk = scratch + 4 * d, *block_dv = scratch + 5 * d;
  const int64_t last = args.window > 0 && position + args.window < end - begin ? position + args.window : end - begin;
  for (int64_t e = 0; e < d; ++e) dk[e] = dv[e] = 0;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t e = 0; e < d; ++e) head_dk[e] = head_dv[e] = 0;
    for (int64_t query_block = position / kKeyBlock * kKeyBlock; query_block < last; query_block += kKeyBlock) {
      for (int64_t e = 0; e < d; ++e) block_dk[e] = block_dv[e] = 0;
      for (int64_t i = query_block > position ? query_block : position; i < query_block + kKeyBlock && i < last; ++i) {
        const Weights<T> w = weights_of(args, delta, begin + i, key, head);
        const Features<T> q = at(args.q, begin + i, head), d_o = at(args.d_o, begin + i, head);
        for (int64_t e = 0; e < d; ++e) {
          block_dk[e] = fused(w.ds, q.data[e * q.stride], block_dk[e]);
          block_dv[e] = fused(w.p, d_o.data[e * d_o.stride], block_dv[e]);
        }
      }
      for (int64_t e = 0; e < d; ++e) {
        head_dk[e] += block_dk[e];
        head_dv[e] += block_dv[e];
      }
    }
    for (int64_t e = 0; e < d; ++e) {
      dk[e] += static_cast<T>(args.scale) * head_dk[e];
      dv[e] += head_dv[e];
    }
  }
  T* to_k = args.dk.data() + key * args.dk.stride(0) + kv_head * args.dk.stride(1);
  T* to_v = args.dv.data() + key * args.dv.stride(0) + kv_head * args.dv.stride(1);
  for (int64_t e = 0; e < d; ++e) {
    to_k[e * args.dk.stride(2)] = dk[e];
    to_v[e * args.dv.stride(2)] = dv[e];
  }
}

template <typename T>
void attention_backward_plain(Context& context, const AttentionBackwardArgs<T>& args) noexcept {
  const int64_t sequences = static_cast<int64_t>(args.sequence_offsets.size()) - 1, heads = args.num_heads,
                kv_heads = args.num_kv_heads;
  if (sequences < 1) return;
  const int32_t* offsets = args.sequence_offsets.data();
  T* delta = context.shared<T>();  // [rows * heads]
  context.pool().parallel(offsets[sequences] - offsets[0], [&](int64_t task, int) {
    for (int64_t head = 0; head < heads; ++head) delta_row(args, offsets[0] + task, head, delta);
  });
  context.pool().parallel(sequences * heads, [&](int64_t task, int worker) {
    T* scratch = context.worker<T>(worker);
    const int64_t sequence = task / heads;
    dq_of_head(args, delta, offsets[sequence], offsets[sequence + 1], task % heads, scratch, scratch + args.head_dim);
  });
  context.pool().parallel(sequences * kv_heads, [&](int64_t task, int worker) {
    const int64_t begin = offsets[task / kv_heads], end = offsets[task / kv_heads + 1];
    for (int64_t key = begin; key < end; ++key) {
      dkv_of_key(args, delta, begin, end, key, task % kv_heads, context.worker<T>(worker));
    }
  });
}

}  // namespace
}  // namespace graft
