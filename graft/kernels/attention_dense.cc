#include "graft/kernels/attention_dense.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "graft/kernels/attention.h"
#include "graft/kernels/attention_plan.h"

namespace graft {
namespace {

// Row i of o becomes 0 and its lse -infinity for i < count, in every head.
void write_blind_rows(int64_t count, View<float, 3> o, View<float, 2> lse) noexcept {
  for (int64_t h = 0; h < o.extent(0); ++h) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t e = 0; e < o.extent(2); ++e) o(h, i, e) = 0;
      if (lse.data() != nullptr) lse(h, i) = -std::numeric_limits<float>::infinity();
    }
  }
}

// One batch entry: q, o [H, Lq, D], k, v [Hkv, Lk, D], lse [H, Lq].
template <typename S>
void attend(Context& context, View<const S, 3> q, View<const S, 3> k, View<const S, 3> v, bool causal, double scale,
            View<float, 3> o, View<float, 2> lse) noexcept {
  const int64_t heads = q.extent(0), queries = q.extent(1), d = q.extent(2), keys = k.extent(1);
  const int64_t blind = keys == 0 ? queries : causal ? std::max<int64_t>(0, queries - keys) : 0;
  write_blind_rows(blind, o, lse);
  if (blind == queries) return;
  KeyRange<S> range;
  range.length = keys;
  range.k = k.data(), range.v = v.data();
  range.k_token_stride = k.stride(1), range.k_head_stride = k.stride(0), range.k_feature_stride = k.stride(2);
  range.v_token_stride = v.stride(1), range.v_head_stride = v.stride(0), range.v_feature_stride = v.stride(2);
  AttentionSequence<S> sequence;
  sequence.row_begin = blind, sequence.num_rows = queries - blind;
  sequence.position_begin = causal ? keys - (queries - blind) : 0;
  sequence.ranges = {&range, 1};
  sequence.num_keys = causal ? -1 : keys;
  AttentionArgs<float, S> args;
  args.sequences = {&sequence, 1};
  args.num_heads = heads, args.num_kv_heads = k.extent(0), args.head_dim = d;
  args.scale = scale;
  args.q = View<const S, 3>(q.data(), {queries, heads, d}, {q.stride(1), q.stride(0), q.stride(2)});
  args.o = View<float, 3>(o.data(), {queries, heads, d}, {o.stride(1), o.stride(0), o.stride(2)});
  args.lse = View<float, 2>(lse.data(), {queries, heads}, {lse.stride(1), lse.stride(0)});
  attention(context, args);
}

template <typename T>
View<T, 3> entry(View<T, 4> x, int64_t b) noexcept {
  return View<T, 3>(x.data() + b * x.stride(0), {x.extent(1), x.extent(2), x.extent(3)},
                    {x.stride(1), x.stride(2), x.stride(3)});
}

template <typename S>
void attend_all(Context& context, View<const S, 4> q, View<const S, 4> k, View<const S, 4> v, bool causal, double scale,
                View<float, 4> o, View<float, 3> lse) noexcept {
  assert(k.extent(1) > 0 && q.extent(1) % k.extent(1) == 0 && q.extent(3) == k.extent(3));
  for (int64_t b = 0; b < q.extent(0); ++b) {
    const View<float, 2> lse_b(lse.data() == nullptr ? nullptr : lse.data() + b * lse.stride(0),
                               {q.extent(1), q.extent(2)}, {lse.stride(1), lse.stride(2)});
    attend(context, entry(q, b), entry(k, b), entry(v, b), causal, scale, entry(o, b), lse_b);
  }
}

template <typename T>
View<T, 3> one_head(View<T, 2> x) noexcept {
  return View<T, 3>(x.data(), {1, x.extent(0), x.extent(1)}, {0, x.stride(0), x.stride(1)});
}

}  // namespace

ScratchNeed attention_dense_scratch(int64_t num_heads, int64_t num_kv_heads, int64_t num_queries, int64_t num_keys,
                                    int64_t head_dim) {
  // Calls of few rows alone are split over spans of keys, whatever the number of threads beyond one.
  const int threads = num_queries < kTileRows ? 2 : 1;
  return attention_scratch(threads, num_heads, num_kv_heads, head_dim, num_queries, num_keys);
}

void attention_sdpa(Context& context, View<const float, 4> q, View<const float, 4> k, View<const float, 4> v,
                    bool causal, double scale, View<float, 4> o, View<float, 3> lse) noexcept {
  attend_all(context, q, k, v, causal, scale, o, lse);
}
void attention_flash(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                     double scale, View<float, 4> o, View<float, 3> lse) noexcept {
  attend_all(context, q, k, v, causal, scale, o, lse);
}
void attention_mqa(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                   double scale, View<float, 4> o, View<float, 3> lse) noexcept {
  assert(k.extent(1) == 1);
  attend_all(context, q, k, v, causal, scale, o, lse);
}
void attention_gqa(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                   double scale, View<float, 4> o, View<float, 3> lse) noexcept {
  attend_all(context, q, k, v, causal, scale, o, lse);
}
void fused_attention_softmax_v(Context& context, View<const float, 2> q, View<const float, 2> k, View<const float, 2> v,
                               double scale, View<float, 2> o, std::span<float> lse) noexcept {
  const View<float, 2> lse_view(lse.empty() ? nullptr : lse.data(), 1, q.extent(0));
  attend(context, one_head(q), one_head(k), one_head(v), false, scale, one_head(o), lse_view);
}

}  // namespace graft
