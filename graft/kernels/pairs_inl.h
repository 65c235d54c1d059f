// Loads and stores of fft_chains_inl.h, signal_chains_inl.h and their kin in Highway: interleaved pairs and triples, reversed vectors, stores past the
// cache. Include after hwy/highway.h and hwy/cache_control.h; compiled once per target.

#if defined(GRAFT_KERNELS_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_PAIRS_INL_H_
#undef GRAFT_KERNELS_PAIRS_INL_H_
#else
#define GRAFT_KERNELS_PAIRS_INL_H_
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE void load_pairs(D d, const float* from, V& re, V& im) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    re = hn::LoadU(d, from);
    im = hn::LoadU(d, from + 1);
  } else {
    const V low = hn::LoadU(d, from), high = hn::LoadU(d, from + hn::MaxLanes(D()));
    re = hn::ConcatEven(d, high, low);
    im = hn::ConcatOdd(d, high, low);
  }
}
template <class D, class V>
HWY_INLINE void store_pairs(D d, V re, V im, float* to) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    hn::StoreU(re, d, to);
    hn::StoreU(im, d, to + 1);
  } else {
    hn::StoreInterleaved2(re, im, d, to);
  }
}
template <class D, class V>
HWY_INLINE void load_triples(D d, const float* from, V& a, V& b, V& c) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    a = hn::LoadU(d, from);
    b = hn::LoadU(d, from + 1);
    c = hn::LoadU(d, from + 2);
  } else {
    hn::LoadInterleaved3(d, from, a, b, c);
  }
}
template <class D, class V>
HWY_INLINE void store_triples(D d, V a, V b, V c, float* to) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    hn::StoreU(a, d, to);
    hn::StoreU(b, d, to + 1);
    hn::StoreU(c, d, to + 2);
  } else {
    hn::StoreInterleaved3(a, b, c, d, to);
  }
}
template <class D, class V>
HWY_INLINE V reverse(D d, V v) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return v;
  } else {
    return hn::Reverse(d, v);
  }
}
template <class D, class V>
HWY_INLINE void store_past(D d, V v, float* to) {
  hn::Stream(v, d, to);
}
HWY_INLINE void flush_past() { hwy::FlushStream(); }

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
