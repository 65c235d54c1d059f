#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Ragged attention with grouped heads, causal (perhaps with a sliding window) or over all keys; no S x S matrix (online
// softmax, arXiv:1805.02867, 2205.14135).
//   o[t, h] = sum_j softmax_j(scale * q[t,h] . k[j, h / (heads/kv_heads)]) v[j, …]
// with j over positions max(0, p - window + 1) … p of t's sequence, or over all of them. Queries, keys and values are f32,
// or f16 that is widened (exactly) as it is read.
//
// Arithmetic contract (design.md, point 8): key blocks of 64 by position in the sequence (block b holds positions
// 64b … 64b+63), restarted every 512 positions; spans merged in order. Inside a block:
//   s_j = scale * (chain of fma over d ascending from +0), m' = max(m, max_j s_j) with NaN kept, c = exp(m - m'),
//   p_j = exp(s_j - m') for visible j, others do not exist,
//   l = l * c + (sum of p over 64 lanes by the tree +32 … +1, absent lanes +0),
//   o = o * c, then a chain of fma(p_j, v_j) over visible j ascending.
// A span starts from m = -inf, l = 0, o = 0; its first block rescales like every other. Merge of spans A, B:
//   m = max(mA, mB), l = lA exp(mA - m) + lB exp(mB - m), o likewise.
// At the end o / l. What is not said to be fused is rounded step by step. A block whose visible scores are all -inf
// gives NaN (so does infinity among them): no finite input below the overflow of a dot product does that.
// Training, prefill and decoding give the same bits, whatever else is in the batch.

// Where the keys and values of a run of positions lie.
template <typename T>
struct KeyRange {
  int64_t begin = 0, length = 0;  // positions [begin, begin + length) of the sequence
  // rows: key of position begin + i, kv head h: k + i * k_token_stride + h * k_head_stride, features k_feature_stride
  //   apart; values likewise
  // blocks (key cache): k points at block [ceil(length/64)][kv_heads][D][64] of positions begin …, begin a multiple
  //   of 64; v at rows [position - begin][kv_heads][D]; the strides below are not read
  bool key_blocks = false;
  const T* k = nullptr;
  const T* v = nullptr;
  int64_t k_token_stride = 0, k_head_stride = 0, k_feature_stride = 1;
  int64_t v_token_stride = 0, v_head_stride = 0, v_feature_stride = 1;
};

// Query rows [row_begin, row_begin + num_rows) are positions position_begin … of one sequence; ranges cover positions
// 0 … last in order.
template <typename T>
struct AttentionSequence {
  int64_t row_begin = 0, num_rows = 0, position_begin = 0;
  std::span<const KeyRange<T>> ranges;
  int64_t num_keys = -1;  // -1: causal; else every row sees positions 0 … num_keys - 1 (one at least), and window is 0
  int64_t end_of_keys(int64_t position) const { return num_keys >= 0 ? num_keys : position + 1; }
};

// S: how queries, keys and values are stored; T, or f16 with T float.
template <typename T, typename S = T>
struct AttentionArgs {
  std::span<const AttentionSequence<S>> sequences;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t window = 0;  // 0: none; w: a position sees itself and the w - 1 before it
  double scale = 0;    // 1 / sqrt(head_dim)
  View<const S, 3> q;  // [rows, heads, head_dim], any strides
  View<T, 3> o;        // [rows, heads, head_dim], any strides
  View<T, 2> lse;      // [rows, heads], any strides: m + log l, kept for the backward; data() may be null
};
template <typename T, typename S>
void attention(Context& context, const AttentionArgs<T, S>& args) noexcept;
// rows: most query rows of a call; max_length: most positions of a sequence.
ScratchNeed attention_scratch(int num_threads, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t rows,
                              int64_t max_length);

// Backward for training: every sequence's keys are its own rows (one range, begin 0, with the strides of the views).
//   p = exp(s - lse), delta[t,h] = sum_d do * o (64 lanes of fma, d mod 64, then the tree), ds = p * (do . v - delta)
//   dq = scale * sum over key blocks of 64 of ds k
//   dk = scale * sum over query blocks of 64 of ds q, dv = sum of p do; both then over the heads of a group, ascending
// A block's sum is a chain of fma from +0, ascending; all other sums start at +0 as well. All three are written.
template <typename T>
struct AttentionBackwardArgs {
  std::span<const int32_t> sequence_offsets;  // [sequences + 1], rows of each sequence; position = row - begin
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0, window = 0;
  double scale = 0;
  View<const T, 3> q, k, v, o, d_o;  // [rows, heads | kv_heads, head_dim]
  std::span<const T> lse;
  View<T, 3> dq, dk, dv;
};
template <typename T>
void attention_backward(Context& context, const AttentionBackwardArgs<T>& args) noexcept;
ScratchNeed attention_backward_scratch(int num_threads, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                       int64_t rows, int64_t max_length);

// Appends rows to a key/value cache laid out as above: the key of (position p, head h) goes to block p / 64, column
// p mod 64.
// k, v [rows, kv_heads, head_dim]; positions position_begin …; k_blocks [.][kv_heads][D][64] and v_rows
// [.][kv_heads][D] start at position 0.
template <typename T>
void append_to_cache(Context& context, View<const T, 3> k, View<const T, 3> v, int64_t position_begin, T* k_blocks,
                     T* v_rows) noexcept;

}  // namespace graft
