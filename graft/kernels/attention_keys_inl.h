// Where the keys and values of a block of positions stand. Include after hwy/highway.h; compiled once per target.

#if defined(GRAFT_KERNELS_ATTENTION_KEYS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_ATTENTION_KEYS_INL_H_
#undef GRAFT_KERNELS_ATTENTION_KEYS_INL_H_
#else
#define GRAFT_KERNELS_ATTENTION_KEYS_INL_H_
#endif

#include <cstdint>

#include "graft/kernels/attention_plan.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// S: what queries, keys and values are stored as, float or f16.
template <class S>
constexpr bool kStoredAsFloat = hwy::IsSame<S, float>();
template <class S>
using Args = AttentionArgs<float, S>;
template <class S>
using KeySequence = AttentionSequence<S>;

// Keys and values of one block of one kv head: key i, feature e at k[i * k_row + e * k_feature].
template <class S>
struct KeyBlock {
  const S *k, *v;
  int64_t k_row, k_feature, v_row, v_feature;
};

template <class S>
HWY_INLINE KeyBlock<S> keys_at(const Args<S>& args, const KeyRange<S>& range, int64_t position, int64_t kv_head) {
  const int64_t i = position - range.begin, d = args.head_dim;
  if (range.key_blocks) {
    return {range.k + ((i / kKeyBlock) * args.num_kv_heads + kv_head) * d * kKeyBlock + i % kKeyBlock,
            range.v + (i * args.num_kv_heads + kv_head) * d,
            1,
            kKeyBlock,
            args.num_kv_heads * d,
            1};
  }
  return {range.k + i * range.k_token_stride + kv_head * range.k_head_stride,
          range.v + i * range.v_token_stride + kv_head * range.v_head_stride,
          range.k_token_stride,
          range.k_feature_stride,
          range.v_token_stride,
          range.v_feature_stride};
}

// Moves `at` to the range that holds `position`; positions are asked for in ascending order.
template <class S>
HWY_INLINE const KeyRange<S>& advance(const KeySequence<S>& sequence, int64_t position, const KeyRange<S>*& at) {
  if (at == nullptr) at = sequence.ranges.data();
  while (position >= at->begin + at->length) ++at;
  return *at;
}

template <class S>
HWY_INLINE int64_t first_seen(const Args<S>& args, int64_t position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
}

// A stride at which the rows of a block fall into few sets of the first cache, so that a copy pays.
HWY_INLINE bool aliases(int64_t stride) { return stride * 4 % 2048 == 0; }

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
