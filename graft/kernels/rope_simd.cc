#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/rope_simd.cc"  // this file
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on

#include "graft/kernels/rope_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Turns one pair of vectors or, in the tail, of scalars in the first lane.
template <class D, class V>
HWY_INLINE void turn(D, V x1, V x2, V c, V s, V* y1, V* y2) {
  *y1 = hn::MulSub(x1, c, hn::Mul(x2, s));
  *y2 = hn::MulAdd(x2, c, hn::Mul(x1, s));
}

template <bool kStream, class D>
HWY_INLINE int64_t turn_halves(D d, const RopeRow<float>& row, const float* x, float* y, int64_t i) {
  const auto sign = row.inverse ? hn::SignBit(d) : hn::Zero(d);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= row.half; i += lanes) {
    auto y1 = hn::Zero(d), y2 = hn::Zero(d);
    turn(d, hn::LoadU(d, x + i), hn::LoadU(d, x + row.half + i), hn::LoadU(d, row.cos + i),
         hn::Xor(hn::LoadU(d, row.sin + i), sign), &y1, &y2);
    if constexpr (kStream) {
      hn::Stream(y1, d, y + i);
      hn::Stream(y2, d, y + row.half + i);
    } else {
      hn::StoreU(y1, d, y + i);
      hn::StoreU(y2, d, y + row.half + i);
    }
  }
  return i;
}

template <class D>
HWY_INLINE int64_t turn_pairs(D d, const RopeRow<float>& row, const float* x, float* y, int64_t i) {
  const auto sign = row.inverse ? hn::SignBit(d) : hn::Zero(d);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= row.half; i += lanes) {
    auto x1 = hn::Zero(d), x2 = hn::Zero(d), y1 = hn::Zero(d), y2 = hn::Zero(d);
    hn::LoadInterleaved2(d, x + 2 * i, x1, x2);
    turn(d, x1, x2, hn::LoadU(d, row.cos + i), hn::Xor(hn::LoadU(d, row.sin + i), sign), &y1, &y2);
    hn::StoreInterleaved2(y1, y2, d, y + 2 * i);
  }
  return i;
}

void rope_row(const RopeRow<float>& row) noexcept {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  // Every head begins at a whole vector, as does its second half.
  const auto offsets = static_cast<uint64_t>(row.y_head_stride | row.half) * sizeof(float);
  const bool stream =
      row.stream && (reinterpret_cast<uintptr_t>(row.y) | offsets) % (hn::Lanes(d) * sizeof(float)) == 0;
  for (int64_t head = 0; head < row.heads; ++head) {
    const float* x = row.x + head * row.x_head_stride;
    float* y = row.y + head * row.y_head_stride;
    if (row.interleaved) {
      int64_t i = turn_pairs(d, row, x, y, 0);
      if constexpr (HWY_MAX_BYTES > 32) i = turn_pairs(hn::CappedTag<float, 8>(), row, x, y, i);  // heads of 16
      for (; i < row.half; ++i) {
        const float s = row.inverse ? -row.sin[i] : row.sin[i];
        auto y1 = hn::Zero(one), y2 = hn::Zero(one);
        turn(one, hn::Set(one, x[2 * i]), hn::Set(one, x[2 * i + 1]), hn::Set(one, row.cos[i]), hn::Set(one, s), &y1,
             &y2);
        y[2 * i] = hn::GetLane(y1);
        y[2 * i + 1] = hn::GetLane(y2);
      }
    } else {
      const int64_t whole = stream ? turn_halves<true>(d, row, x, y, 0) : turn_halves<false>(d, row, x, y, 0);
      turn_halves<false>(one, row, x, y, turn_halves<false>(hn::CappedTag<float, 8>(), row, x, y, whole));
    }
    if (y != x) {
      for (int64_t i = 2 * row.half; i < row.head_dim; ++i) y[i] = x[i];
    }
  }
  if (stream) hwy::FlushStream();
}

}  // namespace

constexpr RopeRowFunction kRopeRow = rope_row;

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
RopeRowFunction rope_row_simd() noexcept {
  const RopeRowFunction* function = GRAFT_SIMD_TABLE(kRopeRow);
  return function == nullptr ? nullptr : *function;
}
}  // namespace graft
#endif
