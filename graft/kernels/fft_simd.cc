#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/fft_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/pairs_inl.h"
// clang-format on

#include "graft/kernels/fft_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using RowTag = hn::CappedTag<float, 16>;
using LaneTag = hn::CappedTag<float, 1>;
constexpr int64_t kRowLanes = static_cast<int64_t>(hn::MaxLanes(RowTag()));

// The 128-bit blocks of v, `stride` floats from one to the next.
template <class D, class V>
HWY_INLINE void store_blocks(D d, V v, float* to, int64_t stride) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    hn::StoreU(v, d, to);
  } else {
    const hn::Half<D> half;
    store_blocks(half, hn::LowerHalf(half, v), to, stride);
    store_blocks(half, hn::UpperHalf(half, v), to + static_cast<int64_t>(hn::MaxLanes(half)) / 4 * stride, stride);
  }
}
template <class D, class V>
HWY_INLINE void store_columns(D d, V a, V b, V c, V e, float* to, int64_t stride) {
  const hn::Repartition<uint64_t, D> pairs;
  const auto join = [&](auto x, auto y, bool upper) HWY_ATTR {
    const auto p = hn::BitCast(pairs, x), q = hn::BitCast(pairs, y);
    return hn::BitCast(d, upper ? hn::InterleaveUpper(pairs, p, q) : hn::InterleaveLower(pairs, p, q));
  };
  const V ab = hn::InterleaveLower(d, a, b), ce = hn::InterleaveLower(d, c, e);
  const V ab2 = hn::InterleaveUpper(d, a, b), ce2 = hn::InterleaveUpper(d, c, e);
  store_blocks(d, join(ab, ce, false), to, 4 * stride);
  store_blocks(d, join(ab, ce, true), to + stride, 4 * stride);
  store_blocks(d, join(ab2, ce2, false), to + 2 * stride, 4 * stride);
  store_blocks(d, join(ab2, ce2, true), to + 3 * stride, 4 * stride);
}

#include "graft/kernels/fft_chains_inl.h"

}  // namespace

constexpr FftTable kFftTable = {direct, columns, rows, multiply, real_pairs, power_pairs, power};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const FftTable* fft_simd() noexcept { return GRAFT_SIMD_TABLE(kFftTable); }
}  // namespace graft
#endif
