#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/attention_backward_simd.cc"  // this file
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/attention_tile_inl.h"
#include "graft/kernels/math_inl.h"
// clang-format on

#include "graft/kernels/attention_plan.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// One pass over pairs of key and query blocks; per pair five products (s, do . v, dv, dk, dq), all by the tile of
// attention_tile_inl.h. s and ds are [64 query rows][64 keys], lanes over keys; dk, dv and dq have lanes over
// features. Key blocks are the outer loop, so that dq grows over key blocks and dk, dv over query blocks, each in
// ascending order.

using Args = AttentionBackwardArgs<float>;

struct Rows {
  const float* data;  // features contiguous
  int64_t stride;
};

// Rows of one head as vectors can read them: in place where whole vectors of features lie together, else a padded copy.
HWY_INLINE Rows vector_rows(const View<const float, 3>& x, int64_t row, int64_t head, int64_t rows, int64_t head_dim,
                            float* copy) {
  const float* from = x.data() + row * x.stride(0) + head * x.stride(1);
  const int64_t padded = padded_features(head_dim);
  if (x.stride(2) == 1 && padded == head_dim && x.stride(0) * 4 % 2048 != 0) return {from, x.stride(0)};
  copy_rows(from, x.stride(0), x.stride(2), rows, head_dim, copy, padded);
  return {copy, padded};
}

// delta = sum of do * o over features: 64 lanes, tree.
HWY_INLINE void delta_rows(const Args& args, int64_t begin, int64_t end, int64_t head, float* delta) {
  const Tag d;
  for (int64_t row = begin; row < end; ++row) {
    const float* a = args.d_o.data() + row * args.d_o.stride(0) + head * args.d_o.stride(1);
    const float* b = args.o.data() + row * args.o.stride(0) + head * args.o.stride(1);
    Vec lanes[kGroups];
    GRAFT_UNROLL
    for (int64_t g = 0; g < kGroups; ++g) lanes[g] = hn::Zero(d);
    int64_t e = 0;
    if (args.d_o.stride(2) == 1 && args.o.stride(2) == 1) {
      for (; e + 64 <= args.head_dim; e += 64) {
        GRAFT_UNROLL
        for (int64_t g = 0; g < kGroups; ++g) {
          lanes[g] = hn::MulAdd(hn::LoadU(d, a + e + g * kLanes), hn::LoadU(d, b + e + g * kLanes), lanes[g]);
        }
      }
    }
    for (; e < args.head_dim; e += 64) {
      HWY_ALIGN float x[64] = {}, y[64] = {};
      const int64_t n = smaller(64, args.head_dim - e);
      for (int64_t i = 0; i < n; ++i) {
        x[i] = a[(e + i) * args.d_o.stride(2)];
        y[i] = b[(e + i) * args.o.stride(2)];
      }
      const Vec limit = hn::Set(d, static_cast<float>(n)), lane = hn::Iota(d, 0.0f);
      GRAFT_UNROLL
      for (int64_t g = 0; g < kGroups; ++g) {  // lanes without a feature stay as they are: fma(0, 0, -0) would be +0
        const auto present = hn::Lt(hn::Add(lane, hn::Set(d, static_cast<float>(g * kLanes))), limit);
        lanes[g] = hn::IfThenElse(
            present, hn::MulAdd(hn::Load(d, x + g * kLanes), hn::Load(d, y + g * kLanes), lanes[g]), lanes[g]);
      }
    }
    delta[row * args.num_heads + head] = tree_of_lanes(d, tree_of_vectors(lanes));
  }
}

// ds = p * (acc - delta of the row), p and ds [64][64]
struct StoreDs {
  const float *p, *delta;
  float* ds;
  int64_t delta_stride;
  HWY_INLINE void operator()(int64_t m, int64_t column, Vec acc) const {
    const Tag d;
    const Vec x = hn::Sub(acc, hn::Set(d, delta[m * delta_stride]));
    hn::StoreU(hn::Mul(hn::LoadU(d, p + m * 64 + column), x), d, ds + m * 64 + column);
  }
};

// to = scale * (to + acc)
struct AddToAndScale {
  float* to;
  int64_t row;
  float scale;
  HWY_INLINE void operator()(int64_t m, int64_t column, Vec acc) const {
    const Tag d;
    float* p = to + m * row + column;
    hn::StoreU(hn::Mul(hn::Set(d, scale), hn::Add(hn::LoadU(d, p), acc)), d, p);
  }
};

struct Scratch {
  float *k_t, *v_t;             // [head_dim][64], keys of the block
  float *k, *q, *d_o;           // copies [64][padded] where needed
  float *p, *ds;                // [64][64]
  float *dk, *dv;               // [64][padded], of one head
  float *dk_sum, *dv_sum, *dq;  // [64][padded]
};

HWY_INLINE Scratch scratch_of(float* base, int64_t padded) {
  const int64_t block = 64 * padded;
  float* small = base + 10 * block;
  return {base,         base + block,     base + 2 * block, base + 3 * block, base + 4 * block, small,
          small + 4096, base + 5 * block, base + 6 * block, base + 7 * block, base + 8 * block, base + 9 * block};
}

// Positions, in the sequence, of a key block and of a query block; both blocks may be cut by the end.
struct Pair {
  int64_t key_block, num_keys, query_block, num_queries;
};

// Every query of the pair sees all 64 keys.
HWY_INLINE bool whole_pair(const Args& args, const Pair& pair) {
  return pair.query_block > pair.key_block && pair.num_keys == 64 &&
         (args.window == 0 || pair.query_block + pair.num_queries - 1 - pair.key_block < args.window);
}

// The head's contribution of one pair to dk, dv and dq. `begin` is the first row of the sequence.
HWY_INLINE void pair_gradients(const Args& args, const Pair& pair, int64_t begin, int64_t head, const float* delta,
                               Rows k, const Scratch& s) {
  const Tag tag;
  const int64_t d = args.head_dim, padded = padded_features(d), row = begin + pair.query_block, n = pair.num_queries;
  const float scale = static_cast<float>(args.scale);
  const float* q_from = args.q.data() + row * args.q.stride(0) + head * args.q.stride(1);
  const float* do_from = args.d_o.data() + row * args.d_o.stride(0) + head * args.d_o.stride(1);
  const Matrix q{q_from, args.q.stride(0), args.q.stride(2)}, d_o{do_from, args.d_o.stride(0), args.d_o.stride(2)};
  const float* lse = args.lse.data() + row * args.num_heads + head;
  const StoreDs store_ds{s.p, delta + row * args.num_heads + head, s.ds, args.num_heads};
  const bool whole = whole_pair(args, pair);
  const int64_t offset = pair.query_block - pair.key_block;  // position of query row 0, counted from key 0

  if (whole) {
    product(q, s.k_t, 64, Whole{d}, n, 64, FromZero{}, StoreScaled{s.p, 64, scale});
    for (int64_t i = 0; i < n; ++i) {
      const Vec shift = hn::Set(tag, lse[i * args.num_heads]);
      GRAFT_UNROLL
      for (int64_t g = 0; g < kGroups; ++g) {
        float* p = s.p + i * 64 + g * kLanes;
        hn::StoreU(exp_f32(tag, hn::Sub(hn::LoadU(tag, p), shift)), tag, p);
      }
    }
    product(d_o, s.v_t, 64, Whole{d}, n, 64, FromZero{}, store_ds);
  } else {
    for (int64_t g = 0; g < pair.num_keys; g += kLanes) {  // a strip of keys is seen by the rows [low, high)
      const int64_t low = greater(g - offset, 0), last_key = smaller(g + kLanes, pair.num_keys) - 1;
      const int64_t high = args.window > 0 ? smaller(last_key - offset + args.window, n) : n;
      if (low >= high) continue;
      strip<1>(q, s.k_t, 64, Whole{d}, low, high, g, FromZero{}, StoreScaled{s.p, 64, scale});
      for (int64_t i = low; i < high; ++i) {
        float* p = s.p + i * 64 + g;
        hn::StoreU(exp_f32(tag, hn::Sub(hn::LoadU(tag, p), hn::Set(tag, lse[i * args.num_heads]))), tag, p);
      }
      strip<1>(d_o, s.v_t, 64, Whole{d}, low, high, g, FromZero{}, store_ds);
    }
  }

  // Key j is seen by the query rows from j - offset on, `window` of them; query row i sees the keys up to i + offset.
  const RowBand queries{-offset, args.window > 0 ? args.window - offset : int64_t{1} << 40, n};
  const RowBand keys{args.window > 0 ? offset - args.window + 1 : -(int64_t{1} << 40), offset + 1, pair.num_keys};
  const Rows q_rows = vector_rows(args.q, row, head, n, d, s.q),
             do_rows = vector_rows(args.d_o, row, head, n, d, s.d_o);
  const Matrix p_t{s.p, 1, 64}, ds_t{s.ds, 1, 64}, ds{s.ds, 64, 1};
  if (whole) {
    product(p_t, do_rows.data, do_rows.stride, Whole{n}, 64, padded, FromZero{}, AddTo{s.dv, padded});
    product(ds_t, q_rows.data, q_rows.stride, Whole{n}, 64, padded, FromZero{}, AddTo{s.dk, padded});
  } else {
    product(p_t, do_rows.data, do_rows.stride, queries, pair.num_keys, padded, FromZero{}, AddTo{s.dv, padded});
    product(ds_t, q_rows.data, q_rows.stride, queries, pair.num_keys, padded, FromZero{}, AddTo{s.dk, padded});
  }

  const bool in_place = args.dq.stride(2) == 1 && padded == d, last = pair.query_block == pair.key_block;
  float* dq = args.dq.data() + row * args.dq.stride(0) + head * args.dq.stride(1);
  float* to = in_place ? dq : s.dq;
  const int64_t to_stride = in_place ? args.dq.stride(0) : padded;
  if (!in_place) copy_rows(dq, args.dq.stride(0), args.dq.stride(2), n, d, s.dq, padded);
  if (whole) {
    product(ds, k.data, k.stride, Whole{64}, n, padded, FromZero{}, AddTo{to, to_stride});
  } else if (last) {
    product(ds, k.data, k.stride, keys, n, padded, FromZero{}, AddToAndScale{to, to_stride, scale});
  } else {
    product(ds, k.data, k.stride, keys, n, padded, FromZero{}, AddTo{to, to_stride});
  }
  if (!in_place) {
    for (int64_t i = 0; i < n; ++i) store_row(s.dq + i * padded, d, dq + i * args.dq.stride(0), args.dq.stride(2));
  }
}

// Rows [begin, end) are a sequence. All gradients of the heads [head_begin, head_end), which share kv_head; dk and dv
// go to rows [end - begin] with the given strides.
struct To {
  float *dk, *dv;
  int64_t dk_row, dk_feature, dv_row, dv_feature;
};
void sequence_gradients(const Args& args, int64_t begin, int64_t end, int64_t kv_head, int64_t head_begin,
                        int64_t head_end, const To& to, float* delta, float* worker) {
  const Tag tag;
  const int64_t d = args.head_dim, padded = padded_features(d), length = end - begin;
  const Scratch s = scratch_of(worker, padded);
  const Vec scale = hn::Set(tag, static_cast<float>(args.scale));
  for (int64_t head = head_begin; head < head_end; ++head) {
    delta_rows(args, begin, end, head, delta);
    for (int64_t row = begin; row < end; ++row) {
      store_row(nullptr, d, args.dq.data() + row * args.dq.stride(0) + head * args.dq.stride(1), args.dq.stride(2));
    }
  }
  for (int64_t key_block = 0; key_block < length; key_block += kKeyBlock) {
    Pair pair{key_block, smaller(kKeyBlock, length - key_block), 0, 0};
    const float* k = args.k.data() + (begin + key_block) * args.k.stride(0) + kv_head * args.k.stride(1);
    const float* v = args.v.data() + (begin + key_block) * args.v.stride(0) + kv_head * args.v.stride(1);
    if (pair.num_keys < 64) {
      fill(s.k_t, 64 * d, 0);
      fill(s.v_t, 64 * d, 0);
    }
    transpose(k, args.k.stride(0), args.k.stride(2), pair.num_keys, d, s.k_t, 64);
    transpose(v, args.v.stride(0), args.v.stride(2), pair.num_keys, d, s.v_t, 64);
    const Rows k_rows = vector_rows(args.k, begin + key_block, kv_head, pair.num_keys, d, s.k);
    fill(s.dk_sum, 64 * padded, 0);
    fill(s.dv_sum, 64 * padded, 0);
    const int64_t last = args.window > 0 ? smaller(length, key_block + pair.num_keys - 1 + args.window) : length;
    for (int64_t head = head_begin; head < head_end; ++head) {
      fill(s.dk, 64 * padded, 0);
      fill(s.dv, 64 * padded, 0);
      for (pair.query_block = key_block; pair.query_block < last; pair.query_block += kKeyBlock) {
        pair.num_queries = smaller(kKeyBlock, length - pair.query_block);
        pair_gradients(args, pair, begin, head, delta, k_rows, s);
      }
      for (int64_t i = 0; i < pair.num_keys * padded; i += kLanes) {
        hn::StoreU(hn::Add(hn::LoadU(tag, s.dk_sum + i), hn::Mul(scale, hn::LoadU(tag, s.dk + i))), tag, s.dk_sum + i);
        hn::StoreU(hn::Add(hn::LoadU(tag, s.dv_sum + i), hn::LoadU(tag, s.dv + i)), tag, s.dv_sum + i);
      }
    }
    for (int64_t i = 0; i < pair.num_keys; ++i) {
      store_row(s.dk_sum + i * padded, d, to.dk + (key_block + i) * to.dk_row, to.dk_feature);
      store_row(s.dv_sum + i * padded, d, to.dv + (key_block + i) * to.dv_row, to.dv_feature);
    }
  }
}

void backward(Context& context, const Args& args) noexcept {
  const int64_t sequences = static_cast<int64_t>(args.sequence_offsets.size()) - 1, d = args.head_dim,
                padded = padded_features(d);
  if (sequences < 1) return;
  const int32_t* offsets = args.sequence_offsets.data();
  const int64_t first_row = offsets[0], rows = offsets[sequences] - first_row, heads = args.num_heads,
                kv_heads = args.num_kv_heads;
  const int64_t group = heads / kv_heads;
  float* delta = context.shared<float>() - first_row * heads;
  if (!attention_backward_by_head(context.num_threads(), heads, kv_heads, sequences)) {
    context.pool().parallel(sequences * kv_heads, [&](int64_t task, int worker) HWY_ATTR {
      const int64_t begin = offsets[task / kv_heads], end = offsets[task / kv_heads + 1], kv_head = task % kv_heads;
      const To to{args.dk.data() + begin * args.dk.stride(0) + kv_head * args.dk.stride(1),
                  args.dv.data() + begin * args.dv.stride(0) + kv_head * args.dv.stride(1),
                  args.dk.stride(0),
                  args.dk.stride(2),
                  args.dv.stride(0),
                  args.dv.stride(2)};
      sequence_gradients(args, begin, end, kv_head, kv_head * group, (kv_head + 1) * group, to, delta,
                         context.worker<float>(worker));
    });
    return;
  }
  // Too few key/value heads for the threads: a task per query head, [rows][heads][padded] of dk and of dv, then the
  // sums over heads.
  float* dk = context.shared<float>() + (rows * heads + 15) / 16 * 16;
  float* dv = dk + rows * heads * padded;
  context.pool().parallel(sequences * heads, [&](int64_t task, int worker) HWY_ATTR {
    const int64_t begin = offsets[task / heads], end = offsets[task / heads + 1], head = task % heads;
    const int64_t at = ((begin - first_row) * heads + head) * padded;
    const To to{dk + at, dv + at, heads * padded, 1, heads * padded, 1};
    sequence_gradients(args, begin, end, head / group, head, head + 1, to, delta, context.worker<float>(worker));
  });
  context.pool().parallel((rows + 15) / 16, [&](int64_t task, int) HWY_ATTR {
    for (int64_t row = task * 16; row < smaller(rows, task * 16 + 16); ++row) {
      for (int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
        float* to_k = args.dk.data() + (first_row + row) * args.dk.stride(0) + kv_head * args.dk.stride(1);
        float* to_v = args.dv.data() + (first_row + row) * args.dv.stride(0) + kv_head * args.dv.stride(1);
        const float* from_k = dk + (row * heads + kv_head * group) * padded;
        const float* from_v = dv + (row * heads + kv_head * group) * padded;
        for (int64_t e = 0; e < d; ++e) {
          float k = 0, v = 0;
          for (int64_t g = 0; g < group; ++g) {
            k += from_k[g * padded + e];
            v += from_v[g * padded + e];
          }
          to_k[e * args.dk.stride(2)] = k;
          to_v[e * args.dv.stride(2)] = v;
        }
      }
    }
  });
}

}  // namespace

constexpr AttentionBackward kBackward = backward;

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
AttentionBackward attention_backward_simd() noexcept {
  const AttentionBackward* function = GRAFT_SIMD_TABLE(kBackward);
  return function == nullptr ? nullptr : *function;
}
}  // namespace graft
#endif
