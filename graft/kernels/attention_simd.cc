#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/attention_simd.cc"  // this file
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/attention_keys_inl.h"
#include "graft/kernels/attention_tile_inl.h"
#include "graft/kernels/math_inl.h"
// clang-format on

#include "graft/kernels/attention_plan.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// ---- Lanes over query rows: one head, one block of 64 positions. ----------------------------------------------------

// Running state of 64 query rows; o and total_o [head_dim][64].
struct TileState {
  float *m, *l, *o, *total_m, *total_l, *total_o;
  bool any_total;
};

// Which keys of a block a vector of query rows sees: all of its rows [all_low, all_high), none outside [low, high).
struct Visible {
  int64_t low, all_low, all_high, high;
  bool whole() const { return low == 0 && high == kKeyBlock && all_low == 0 && all_high == kKeyBlock; }
};
template <class S>
HWY_INLINE Visible visible_keys(const Args<S>& args, const KeySequence<S>& sequence, int64_t block, int64_t keys,
                                int64_t first, int64_t last) {
  Visible see;
  see.low = clamp(first_seen(args, first) - block, 0, keys);
  see.all_low = clamp(first_seen(args, last) - block, 0, keys);
  see.high = clamp(sequence.end_of_keys(last) - block, 0, keys);
  see.all_high = clamp(sequence.end_of_keys(first) - block, 0, see.high);
  return see;
}

// p, c and l of one vector of query rows from its scores s [64][64]; every row sees all 64 keys.
HWY_INLINE void soften(float* s, float* m, float* l, float* c) {
  const Tag d;
  Vec m0 = hn::LoadU(d, m), m1 = m0, m2 = m0, m3 = m0;
  // Max is enough: where a score is NaN, its p, l and o are, whatever the maximum.
  for (int64_t j = 0; j < kKeyBlock; j += 4) {
    m0 = hn::Max(m0, hn::LoadU(d, s + j * 64));
    m1 = hn::Max(m1, hn::LoadU(d, s + j * 64 + 64));
    m2 = hn::Max(m2, hn::LoadU(d, s + j * 64 + 128));
    m3 = hn::Max(m3, hn::LoadU(d, s + j * 64 + 192));
  }
  const Vec top = hn::Max(hn::Max(m0, m1), hn::Max(m2, m3));
  const Vec factor = exp_f32(d, hn::Sub(hn::LoadU(d, m), top));
  Vec sums[8];
  GRAFT_UNROLL
  for (int64_t i = 0; i < 8; ++i) {
    Vec p[8];
    GRAFT_UNROLL
    for (int64_t j = 0; j < 8; ++j) {
      p[j] = exp_f32(d, hn::Sub(hn::LoadU(d, s + (i + 8 * j) * 64), top));
      hn::StoreU(p[j], d, s + (i + 8 * j) * 64);
    }
    GRAFT_UNROLL
    for (int64_t j = 0; j < 4; ++j) p[j] = hn::Add(p[j], p[j + 4]);
    sums[i] = hn::Add(hn::Add(p[0], p[2]), hn::Add(p[1], p[3]));
  }
  GRAFT_UNROLL
  for (int64_t i = 0; i < 4; ++i) sums[i] = hn::Add(sums[i], sums[i + 4]);
  const Vec sum = hn::Add(hn::Add(sums[0], sums[2]), hn::Add(sums[1], sums[3]));
  hn::StoreU(hn::Add(hn::Mul(hn::LoadU(d, l), factor), sum), d, l);
  hn::StoreU(top, d, m);
  hn::StoreU(factor, d, c);
}

// The same where some rows see fewer keys. Absent weights are +0; a row that sees none keeps its state (c is 1).
HWY_INLINE void soften_some(float* s, const LaneBand& band, float* m, float* l, float* c) {
  const Tag d;
  const Vec old = hn::LoadU(d, m), none = hn::Neg(hn::Inf(d));
  Vec top = old;
  for (int64_t j = band.low; j < band.high; ++j) {
    const Vec at = hn::Set(d, static_cast<float>(j));
    const auto sees = hn::And(hn::Ge(at, band.begin), hn::Lt(at, band.end));
    top = hn::Max(top, hn::IfThenElse(sees, hn::LoadU(d, s + j * 64), none));
  }
  Vec sums[8];
  GRAFT_UNROLL
  for (int64_t i = 0; i < 8; ++i) {
    Vec p[8];
    for (int64_t j = 0; j < 8; ++j) {
      const int64_t key = i + 8 * j;
      p[j] = hn::Zero(d);
      if (key < band.low || key >= band.high) continue;
      const Vec at = hn::Set(d, static_cast<float>(key));
      const auto sees = hn::And(hn::Ge(at, band.begin), hn::Lt(at, band.end));
      p[j] = hn::IfThenElseZero(sees, exp_f32(d, hn::Sub(hn::LoadU(d, s + key * 64), top)));
      hn::StoreU(p[j], d, s + key * 64);
    }
    GRAFT_UNROLL
    for (int64_t j = 0; j < 4; ++j) p[j] = hn::Add(p[j], p[j + 4]);
    sums[i] = hn::Add(hn::Add(p[0], p[2]), hn::Add(p[1], p[3]));
  }
  GRAFT_UNROLL
  for (int64_t i = 0; i < 4; ++i) sums[i] = hn::Add(sums[i], sums[i + 4]);
  const Vec sum = hn::Add(hn::Add(sums[0], sums[2]), hn::Add(sums[1], sums[3]));
  const auto any = hn::And(hn::Gt(band.end, hn::Set(d, static_cast<float>(band.low))),
                           hn::Lt(band.begin, hn::Set(d, static_cast<float>(band.high))));
  const Vec factor = hn::IfThenElse(any, exp_f32(d, hn::Sub(old, top)), hn::Set(d, 1.0f));
  const Vec before = hn::LoadU(d, l);
  hn::StoreU(hn::IfThenElse(any, hn::Add(hn::Mul(before, factor), sum), before), d, l);
  hn::StoreU(top, d, m);
  hn::StoreU(factor, d, c);
}

// o * c, c one value per column
struct FromRescaled {
  const float *o, *c;
  HWY_INLINE Vec operator()(int64_t m, int64_t column) const {
    const Tag d;
    return hn::Mul(hn::LoadU(d, o + m * 64 + column), hn::LoadU(d, c + column));
  }
};
struct StorePlain {
  float* to;
  int64_t row;
  HWY_INLINE void operator()(int64_t m, int64_t column, Vec acc) const {
    hn::StoreU(acc, Tag(), to + m * row + column);
  }
};

// Takes one key block into the state of the query rows [row_low, row_high) of the block at `query_block`.
template <class S>
HWY_INLINE void tile_block(const Args<S>& args, const KeySequence<S>& sequence, const KeyBlock<float>& keys,
                           int64_t block, int64_t num_keys, int64_t query_block, int64_t row_low, int64_t row_high,
                           const float* q, float* s, float* c, const TileState& state) {
  const int64_t d = args.head_dim;
  const float scale = static_cast<float>(args.scale);
  const Matrix k{keys.k, keys.k_row, keys.k_feature}, v{keys.v, keys.v_feature, keys.v_row};
  const Visible all = visible_keys(args, sequence, block, num_keys, query_block + row_low, query_block + row_high - 1);
  if (all.whole() && row_low < kLanes && row_high > 64 - kLanes) {
    product(k, q, 64, Whole{d}, 64, 64, FromZero{}, StoreScaled{s, 64, scale});
    for (int64_t g = 0; g < 64; g += kLanes) soften(s + g, state.m + g, state.l + g, c + g);
    product(v, s, 64, Whole{kKeyBlock}, d, 64, FromRescaled{state.o, c}, StorePlain{state.o, 64});
    return;
  }
  for (int64_t g = row_low / kLanes * kLanes; g < row_high; g += kLanes) {
    const int64_t first = query_block + greater(g, row_low), last = query_block + smaller(g + kLanes, row_high) - 1;
    const Visible see = visible_keys(args, sequence, block, num_keys, first, last);
    if (see.low >= see.high) continue;
    strip<1>(k, q, 64, Whole{d}, see.low, see.high, g, FromZero{}, StoreScaled{s, 64, scale});
    if (see.whole()) {
      soften(s + g, state.m + g, state.l + g, c + g);
      strip<1>(v, s, 64, Whole{kKeyBlock}, 0, d, g, FromRescaled{state.o, c}, StorePlain{state.o, 64});
      continue;
    }
    const Tag tag;
    const int64_t from_block = query_block + g - block;  // of the first lane's position
    const Vec lane = hn::Iota(tag, 0.0f);
    const Vec none = hn::Set(tag, -1.0f),
              begin = hn::Add(lane, hn::Set(tag, static_cast<float>(from_block - args.window + 1)));
    const Vec end = sequence.num_keys >= 0 ? hn::Set(tag, static_cast<float>(see.high))
                                           : hn::Add(lane, hn::Set(tag, static_cast<float>(from_block + 1)));
    const LaneBand band{args.window > 0 ? begin : none, end, see.low, see.all_low, see.all_high, see.high};
    soften_some(s + g, band, state.m + g, state.l + g, c + g);
    strip<1>(v, s, 64, band, 0, d, g, FromRescaled{state.o, c}, StorePlain{state.o, 64});
  }
}

// Folds the span that ends before position `span_end` into the totals.
template <class S>
HWY_INLINE void tile_merge(const Args<S>& args, int64_t span_begin, int64_t query_block, int64_t row_low,
                           int64_t row_high, TileState& state) {
  const Tag d;
  if (!state.any_total &&
      first_seen(args, query_block + row_high - 1) < span_begin + kKeySpan) {  // every row begins here
    float *m = state.m, *l = state.l, *o = state.o;
    state.m = state.total_m;
    state.l = state.total_l;
    state.o = state.total_o;
    state.total_m = m;
    state.total_l = l;
    state.total_o = o;
    state.any_total = true;
    return;
  }
  for (int64_t g = row_low / kLanes * kLanes; g < row_high; g += kLanes) {
    // Position of the first key that a lane sees, counted from the span.
    const Vec zero = hn::Set(d, static_cast<float>(-span_begin));
    const Vec start =
        args.window > 0
            ? hn::Max(zero, hn::Add(hn::Iota(d, 0.0f),
                                    hn::Set(d, static_cast<float>(query_block + g - args.window + 1 - span_begin))))
            : zero;
    const auto before = hn::Lt(start, hn::Zero(d)), sees = hn::Lt(start, hn::Set(d, static_cast<float>(kKeySpan)));
    const auto both = hn::And(before, sees), fresh = hn::AndNot(before, sees);
    const Vec ma = hn::LoadU(d, state.total_m + g), mb = hn::LoadU(d, state.m + g), m = hn::Max(ma, mb);
    const Vec a = exp_f32(d, hn::Sub(ma, m)), b = exp_f32(d, hn::Sub(mb, m));
    const Vec la = hn::LoadU(d, state.total_l + g), lb = hn::LoadU(d, state.l + g);
    const Vec l = hn::Add(hn::Mul(la, a), hn::Mul(lb, b));
    hn::StoreU(hn::IfThenElse(both, m, hn::IfThenElse(fresh, mb, ma)), d, state.total_m + g);
    hn::StoreU(hn::IfThenElse(both, l, hn::IfThenElse(fresh, lb, la)), d, state.total_l + g);
    for (int64_t e = 0; e < args.head_dim; ++e) {
      const Vec oa = hn::LoadU(d, state.total_o + e * 64 + g), ob = hn::LoadU(d, state.o + e * 64 + g);
      const Vec o = hn::Add(hn::Mul(oa, a), hn::Mul(ob, b));
      hn::StoreU(hn::IfThenElse(both, o, hn::IfThenElse(fresh, ob, oa)), d, state.total_o + e * 64 + g);
    }
  }
  state.any_total = true;
}

template <class S>
void tile_task(const Args<S>& args, const KeySequence<S>& sequence, int64_t query_block_index, int64_t head,
               float* scratch) {
  const Tag tag;
  const int64_t d = args.head_dim, padded = padded_features(d), kv_head = head / (args.num_heads / args.num_kv_heads);
  const int64_t query_block = query_block_index * kKeyBlock, end = sequence.position_begin + sequence.num_rows;
  const int64_t row_low = greater(sequence.position_begin - query_block, 0), row_high = smaller(end - query_block, 64);
  float* q = scratch;           // [d][64]
  float* s = q + 64 * padded;   // [64][64]
  float* copy_k = s + 64 * 64;  // [64][d]
  float* copy_v = copy_k + 64 * padded;
  float* small = copy_v + 64 * padded;
  TileState state{small, small + 64, small + 6 * 64, small + 128, small + 192, small + 6 * 64 + 64 * padded, false};
  float* c = small + 256;

  const int64_t row = sequence.row_begin + query_block + row_low - sequence.position_begin, rows = row_high - row_low;
  if (rows < 64) fill(q, 64 * d, 0);
  const S* from_q = args.q.data() + row * args.q.stride(0) + head * args.q.stride(1);
  if constexpr (kStoredAsFloat<S>) {
    transpose(from_q, args.q.stride(0), args.q.stride(2), rows, d, q + row_low, 64);
  } else {
    copy_rows(from_q, args.q.stride(0), args.q.stride(2), rows, d, copy_k, padded);
    transpose(copy_k, padded, 1, rows, d, q + row_low, 64);
  }

  const int64_t first = first_seen(args, query_block + row_low),
                last = sequence.end_of_keys(query_block + row_high - 1) - 1;
  const KeyRange<S>* at = nullptr;
  for (int64_t span = first / kKeySpan * kKeySpan; span <= last; span += kKeySpan) {
    fill(state.m, 64, -__builtin_inff());
    fill(state.l, 64, 0);
    fill(state.o, 64 * d, 0);
    for (int64_t block = span; block < span + kKeySpan && block <= last; block += kKeyBlock) {
      if (block + kKeyBlock <= first) continue;
      const int64_t begin = greater(block, first), num_keys = smaller(kKeyBlock, last + 1 - block);
      // Keys before `begin` are never read, so their range may be gone.
      const KeyRange<S>* range = &advance(sequence, begin, at);
      const KeyBlock<S> stored = keys_at(args, *range, begin, kv_head);
      KeyBlock<float> keys{copy_k, copy_v, padded, 1, padded, 1};
      if (!kStoredAsFloat<S> || range->begin + range->length < block + num_keys || aliases(stored.v_row) ||
          (aliases(stored.k_row) && stored.k_row != 1)) {
        for (int64_t p = begin; p < block + num_keys;) {
          const KeyRange<S>& part = advance(sequence, p, at);
          const int64_t n = smaller(part.begin + part.length, block + num_keys) - p;
          const KeyBlock<S> from = keys_at(args, part, p, kv_head);
          copy_rows(from.k, from.k_row, from.k_feature, n, d, copy_k + (p - block) * padded, padded);
          copy_rows(from.v, from.v_row, from.v_feature, n, d, copy_v + (p - block) * padded, padded);
          p += n;
        }
      } else if constexpr (kStoredAsFloat<S>) {
        keys = stored;
        keys.k -= (begin - block) * keys.k_row;
        keys.v -= (begin - block) * keys.v_row;
      }
      tile_block(args, sequence, keys, block, num_keys, query_block, row_low, row_high, q, s, c, state);
    }
    tile_merge(args, span, query_block, row_low, row_high, state);
  }

  for (int64_t g = row_low / kLanes * kLanes; g < row_high; g += kLanes) {
    const Vec l = hn::LoadU(tag, state.total_l + g);
    for (int64_t e = 0; e < d; ++e) {
      float* o = state.total_o + e * 64 + g;
      hn::StoreU(hn::Div(hn::LoadU(tag, o), l), tag, o);
    }
    hn::StoreU(hn::Add(hn::LoadU(tag, state.total_m + g), log_f32(tag, l)), tag, state.total_m + g);
  }
  float* o = args.o.data() + row * args.o.stride(0) + head * args.o.stride(1);
  if (args.o.stride(2) == 1) {
    transpose(state.total_o + row_low, 64, 1, d, rows, o, args.o.stride(0), true);
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t e = 0; e < d; ++e) {
        o[r * args.o.stride(0) + e * args.o.stride(2)] = state.total_o[e * 64 + row_low + r];
      }
    }
  }
  if (args.lse.data() != nullptr) {
    float* lse = args.lse.data() + row * args.lse.stride(0) + head * args.lse.stride(1);
    for (int64_t r = 0; r < rows; ++r) lse[r * args.lse.stride(0)] = state.total_m[row_low + r];
  }
}

// ---- Lanes over keys, then features: few query rows, all heads of a group. ------------------------------------------

constexpr int64_t kStateO = 16;  // a state is m, l, …, o[padded] from here on

// p (in place), c and l of one query row from its scores of a block, of which it sees keys [low, high).
HWY_INLINE float soften_row(float* s, int64_t low, int64_t high, float* state) {
  const Tag d;
  const hn::CappedTag<float, 1> one;
  const Vec none = hn::Neg(hn::Inf(d)), lane = hn::Iota(d, 0.0f), begin = hn::Set(d, static_cast<float>(low)),
            end = hn::Set(d, static_cast<float>(high));
  Vec x[kGroups];
  Vec top = hn::Set(d, state[0]);
  GRAFT_UNROLL
  for (int64_t g = 0; g < kGroups; ++g) {
    const Vec at = hn::Add(lane, hn::Set(d, static_cast<float>(g * kLanes)));
    const auto sees = hn::And(hn::Ge(at, begin), hn::Lt(at, end));
    x[g] = hn::IfThenElse(sees, hn::LoadU(d, s + g * kLanes), none);
    top = hn::Max(top, x[g]);  // as in soften: NaN shows in p
  }
  const Vec m = hn::MaxOfLanes(d, top);
  GRAFT_UNROLL
  for (int64_t g = 0; g < kGroups; ++g) {
    const Vec at = hn::Add(lane, hn::Set(d, static_cast<float>(g * kLanes)));
    const auto sees = hn::And(hn::Ge(at, begin), hn::Lt(at, end));
    x[g] = hn::IfThenElseZero(sees, exp_f32(d, hn::Sub(x[g], m)));
    hn::StoreU(x[g], d, s + g * kLanes);
  }
  const float sum = tree_of_lanes(d, tree_of_vectors(x));
  const float highest = hn::GetLane(m);
  const float c = hn::GetLane(exp_f32(one, hn::Sub(hn::Set(one, state[0]), hn::Set(one, highest))));
  state[1] = state[1] * c + sum;
  state[0] = highest;
  return c;
}

// o * c, c one value per row
struct FromRowRescaled {
  const float *o, *c;
  int64_t row;
  HWY_INLINE Vec operator()(int64_t m, int64_t column) const {
    const Tag d;
    return hn::Mul(hn::LoadU(d, o + m * row + column), hn::Set(d, c[m]));
  }
};

struct RowScratch {
  float *k, *v, *s, *c, *q;  // [d][64], [64][padded], [group][64], [group], [group][padded]
};

// States of all rows and heads of a group over one span, from m = -inf on.
template <class S>
HWY_INLINE void row_span(const Args<S>& args, const KeySequence<S>& sequence, int64_t kv_head, int64_t span,
                         const RowScratch& scratch, const KeyRange<S>*& at, float* states) {
  const int64_t d = args.head_dim, padded = padded_features(d), group = args.num_heads / args.num_kv_heads,
                size = state_floats(d);
  const float scale = static_cast<float>(args.scale);
  const int64_t first = first_seen(args, sequence.position_begin),
                last = sequence.end_of_keys(sequence.position_begin + sequence.num_rows - 1) - 1;
  for (int64_t i = 0; i < sequence.num_rows * group; ++i) {
    fill(states + i * size, size, 0);
    states[i * size] = -__builtin_inff();
  }
  for (int64_t block = span; block < span + kKeySpan && block <= last; block += kKeyBlock) {
    if (block + kKeyBlock <= first) continue;
    const int64_t begin = greater(block, first), block_end = smaller(block + kKeyBlock, last + 1);
    const KeyRange<S>* range = &advance(sequence, begin, at);
    const KeyBlock<S> keys = keys_at(args, *range, begin, kv_head);
    const bool single = kStoredAsFloat<S> && range->begin + range->length >= block_end;
    const float *k = scratch.k, *v = scratch.v;
    int64_t v_row = padded;
    if (!single || !range->key_blocks) {
      const KeyRange<S>* from = range;
      for (int64_t p = begin; p < block_end;) {
        const KeyRange<S>& part = advance(sequence, p, from);
        const int64_t n = smaller(part.begin + part.length, block_end) - p;
        const KeyBlock<S> rows = keys_at(args, part, p, kv_head);
        if (part.key_blocks) {
          for (int64_t e = 0; e < d; ++e) {
            for (int64_t i = 0; i < n; ++i) scratch.k[e * 64 + p - block + i] = widen(rows.k[e * kKeyBlock + i]);
          }
        } else if constexpr (!kStoredAsFloat<S>) {
          copy_rows(rows.k, rows.k_row, rows.k_feature, n, d, scratch.v, padded);
          transpose(scratch.v, padded, 1, n, d, scratch.k + p - block, 64);
        } else {
          transpose(rows.k, rows.k_row, rows.k_feature, n, d, scratch.k + p - block, 64);
        }
        p += n;
      }
    } else if constexpr (kStoredAsFloat<S>) {
      k = keys.k - (begin - block);
    }
    if (!single || keys.v_feature != 1 || padded != d) {
      const KeyRange<S>* from = range;
      for (int64_t p = begin; p < block_end;) {
        const KeyRange<S>& part = advance(sequence, p, from);
        const int64_t n = smaller(part.begin + part.length, block_end) - p;
        const KeyBlock<S> rows = keys_at(args, part, p, kv_head);
        copy_rows(rows.v, rows.v_row, rows.v_feature, n, d, scratch.v + (p - block) * padded, padded);
        p += n;
      }
    } else if constexpr (kStoredAsFloat<S>) {
      v = keys.v - (begin - block) * keys.v_row;
      v_row = keys.v_row;
    }
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      const int64_t position = sequence.position_begin + i;
      const int64_t low = greater(first_seen(args, position) - block, 0),
                    high = smaller(sequence.end_of_keys(position) - block, kKeyBlock);
      if (low >= high) continue;
      float* state = states + i * group * size;
      const S* from_q =
          args.q.data() + (sequence.row_begin + i) * args.q.stride(0) + kv_head * group * args.q.stride(1);
      Matrix q{scratch.q, padded, 1};
      if constexpr (kStoredAsFloat<S>) {
        q = {from_q, args.q.stride(1), args.q.stride(2)};
      } else {
        copy_rows(from_q, args.q.stride(1), args.q.stride(2), group, d, scratch.q, padded);
      }
      product(q, k, 64, Whole{d}, group, round_up(high, kLanes), FromZero{}, StoreScaled{scratch.s, 64, scale});
      for (int64_t g = 0; g < group; ++g) scratch.c[g] = soften_row(scratch.s + g * 64, low, high, state + g * size);
      product(Matrix{scratch.s + low, 64, 1}, v + low * v_row, v_row, Whole{high - low}, group, padded,
              FromRowRescaled{state + kStateO, scratch.c, size}, StorePlain{state + kStateO, size});
    }
  }
}

// total (+)= span, for one row and head.
HWY_INLINE void row_merge(int64_t padded, const float* span, bool first, float* total) {
  const Tag d;
  const hn::CappedTag<float, 1> one;
  if (first) {
    for (int64_t e = 0; e < kStateO + padded; e += kLanes) hn::StoreU(hn::LoadU(d, span + e), d, total + e);
    return;
  }
  const float m = total[0] > span[0] ? total[0] : span[0];  // a NaN shows in l and o
  const float a = hn::GetLane(exp_f32(one, hn::Set(one, total[0] - m))),
              b = hn::GetLane(exp_f32(one, hn::Set(one, span[0] - m)));
  total[0] = m;
  total[1] = total[1] * a + span[1] * b;
  for (int64_t e = kStateO; e < kStateO + padded; e += kLanes) {
    hn::StoreU(hn::Add(hn::Mul(hn::LoadU(d, total + e), hn::Set(d, a)), hn::Mul(hn::LoadU(d, span + e), hn::Set(d, b))),
               d, total + e);
  }
}

template <class S>
HWY_INLINE void row_finish(const Args<S>& args, int64_t row, int64_t head, float* total) {
  const Tag d;
  const hn::CappedTag<float, 1> one;
  for (int64_t e = 0; e < padded_features(args.head_dim); e += kLanes) {
    hn::StoreU(hn::Div(hn::LoadU(d, total + kStateO + e), hn::Set(d, total[1])), d, total + kStateO + e);
  }
  store_row(total + kStateO, args.head_dim, args.o.data() + row * args.o.stride(0) + head * args.o.stride(1),
            args.o.stride(2));
  if (args.lse.data() != nullptr) {
    args.lse.data()[row * args.lse.stride(0) + head * args.lse.stride(1)] =
        total[0] + hn::GetLane(log_f32(one, hn::Set(one, total[1])));
  }
}

template <class S>
HWY_INLINE void row_merge_span(const Args<S>& args, const KeySequence<S>& sequence, int64_t span, const float* states,
                               float* totals) {
  const int64_t group = args.num_heads / args.num_kv_heads, size = state_floats(args.head_dim),
                padded = padded_features(args.head_dim);
  for (int64_t i = 0; i < sequence.num_rows; ++i) {
    const int64_t position = sequence.position_begin + i, first = first_seen(args, position);
    if (first >= span + kKeySpan || sequence.end_of_keys(position) <= span) continue;
    for (int64_t g = i * group; g < (i + 1) * group; ++g) {
      row_merge(padded, states + g * size, first >= span, totals + g * size);
    }
  }
}

template <class S>
HWY_INLINE void row_finish_all(const Args<S>& args, const KeySequence<S>& sequence, int64_t kv_head, float* totals) {
  const int64_t group = args.num_heads / args.num_kv_heads, size = state_floats(args.head_dim);
  for (int64_t i = 0; i < sequence.num_rows; ++i) {
    for (int64_t g = 0; g < group; ++g) {
      row_finish(args, sequence.row_begin + i, kv_head * group + g, totals + (i * group + g) * size);
    }
  }
}

template <class S>
HWY_INLINE RowScratch row_scratch(const Args<S>& args, float* scratch) {
  const int64_t padded = padded_features(args.head_dim), group = args.num_heads / args.num_kv_heads;
  float* c = scratch + 128 * padded + 64 * group;
  return {scratch, scratch + 64 * padded, scratch + 128 * padded, c, c + round_up(group, 16)};
}

// All spans of a key/value head, one after the other; or one span into `partial`.
template <class S>
void row_task(const Args<S>& args, const KeySequence<S>& sequence, int64_t kv_head, int64_t first_span,
              int64_t num_spans, float* partial, float* worker) {
  const int64_t group = args.num_heads / args.num_kv_heads,
                count = sequence.num_rows * group * state_floats(args.head_dim);
  const RowScratch scratch = row_scratch(args, worker);
  float* states = scratch.q + group * padded_features(args.head_dim);
  float* totals = states + count;
  const KeyRange<S>* at = nullptr;
  if (partial != nullptr) {
    row_span(args, sequence, kv_head, first_span * kKeySpan, scratch, at, partial);
    return;
  }
  for (int64_t span = first_span; span < first_span + num_spans; ++span) {
    row_span(args, sequence, kv_head, span * kKeySpan, scratch, at, states);
    row_merge_span(args, sequence, span * kKeySpan, states, totals);
  }
  row_finish_all(args, sequence, kv_head, totals);
}

template <class S>
void forward(Context& context, const Args<S>& args) noexcept {
  const AttentionPlan plan = plan_attention(context, args);
  const int64_t states = state_floats(args.head_dim);
  const auto run = [&](int64_t task, int worker) HWY_ATTR {
    const AttentionPlanEntry& e = plan.entry_of_task(task);
    const KeySequence<S>& sequence = args.sequences[static_cast<size_t>(e.sequence)];
    const int64_t local = task - e.first_task;
    float* scratch = context.worker<float>(worker);
    if (e.tile) {  // the last query blocks see most keys: they go first
      tile_task(args, sequence, e.first_block + e.num_blocks - 1 - local / args.num_heads, local % args.num_heads,
                scratch);
    } else if (!plan.split || e.num_spans == 1) {
      row_task(args, sequence, local, e.first_span, e.num_spans, nullptr, scratch);
    } else {
      const int64_t count = sequence.num_rows * (args.num_heads / args.num_kv_heads) * states;
      row_task(args, sequence, local / e.num_spans, e.first_span + local % e.num_spans, 1,
               plan.partials + e.partial + local * count, scratch);
    }
  };
  const auto merge = [&](int64_t task, int worker) HWY_ATTR {
    const AttentionPlanEntry& e = plan.entry_of_merge(task);
    const KeySequence<S>& sequence = args.sequences[static_cast<size_t>(e.sequence)];
    const int64_t kv_head = task - e.first_merge,
                  count = sequence.num_rows * (args.num_heads / args.num_kv_heads) * states;
    const float* partial = plan.partials + e.partial + kv_head * e.num_spans * count;
    float* totals = context.worker<float>(worker);
    for (int64_t i = 0; i < e.num_spans; ++i) {
      row_merge_span(args, sequence, (e.first_span + i) * kKeySpan, partial + i * count, totals);
    }
    row_finish_all(args, sequence, kv_head, totals);
  };
  if (plan.num_tasks > 0) context.pool().parallel(plan.num_tasks, run);
  if (plan.num_merges > 0) context.pool().parallel(plan.num_merges, merge);
}

}  // namespace

constexpr AttentionForwards kForward = {forward<float>, forward<f16>};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const AttentionForwards* attention_simd() noexcept { return GRAFT_SIMD_TABLE(kForward); }
}  // namespace graft
#endif
