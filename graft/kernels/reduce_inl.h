// Highway forms of the sums of reduce_ref_inl.h (same lanes, same tree, same bits) and loops over a row. Include after
// hwy/highway.h; compiled once per target.
//
// Bodies are generic lambdas over a tag: whole vectors first, then single lanes by the same instructions, so that
// nothing is read or written beyond a row and no tail differs.

#if defined(GRAFT_KERNELS_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_REDUCE_INL_H_
#undef GRAFT_KERNELS_REDUCE_INL_H_
#else
#define GRAFT_KERNELS_REDUCE_INL_H_
#endif

#include <limits>
#include <utility>

#include "graft/kernels/reduce_ref_inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using RowTag = hn::CappedTag<float, 16>;
using LaneTag = hn::CappedTag<float, 1>;
constexpr int64_t kRowLanes = static_cast<int64_t>(hn::MaxLanes(RowTag()));

// f(tag, j) for every j in [0, n), a vector at a time.
template <class F>
HWY_INLINE void for_each(int64_t n, F&& f) {
  int64_t j = 0;
  for (; j + kRowLanes <= n; j += kRowLanes) f(RowTag(), j);
  for (; j < n; ++j) f(LaneTag(), j);
}

template <class D, class Combine>
HWY_INLINE hn::TFromD<D> fold_vector([[maybe_unused]] D d, hn::Vec<D> v, [[maybe_unused]] const Combine& combine) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return hn::GetLane(v);
  } else {
    const hn::Half<D> half;
    return fold_vector(half, combine(half, hn::LowerHalf(half, v), hn::UpperHalf(half, v)), combine);
  }
}

// Reduces one block, n at most kSumBlock: lanes start at `start`, step(tag, j, lanes) takes in the terms at j,
// combine(tag, a, b) joins lanes up the tree. At most eight vectors are in flight: where 64 lanes need more, the block
// is read in parts (it is in L1).
template <class D, class Step, class Combine>
HWY_INLINE hn::TFromD<D> reduce_block(D d, int64_t n, hn::TFromD<D> start, const Step& step, const Combine& combine) {
  using T = hn::TFromD<D>;
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(D()));
  constexpr int64_t kVectors = kSumLanes / kLanes < 8 ? kSumLanes / kLanes : 8;
  constexpr int64_t kPart = kVectors * kLanes;
  HWY_ALIGN T lanes[kSumLanes];
  const hn::CappedTag<T, 1> one;
  const int64_t whole = n / kSumLanes * kSumLanes;
  for (int64_t part = 0; part < kSumLanes; part += kPart) {
    [&]<size_t... I>(std::index_sequence<I...>) HWY_ATTR {
      hn::Vec<D> acc[kVectors] = {((void)I, hn::Set(d, start))...};
      for (int64_t j = part; j < whole; j += kSumLanes) {
        ((acc[I] = step(d, j + static_cast<int64_t>(I) * kLanes, acc[I])), ...);
      }
      ((hn::Store(acc[I], d, lanes + part + static_cast<int64_t>(I) * kLanes)), ...);
    }
    (std::make_index_sequence<static_cast<size_t>(kVectors)>());
  }
  int64_t j = whole;
  for (; j + kLanes <= n; j += kLanes) {
    T* at = lanes + (j - whole);
    hn::Store(step(d, j, hn::Load(d, at)), d, at);
  }
  for (; j < n; ++j) {
    T* at = lanes + (j - whole);
    hn::StoreU(step(one, j, hn::LoadU(one, at)), one, at);
  }
  for (int64_t width = kSumLanes / 2; width >= kLanes; width /= 2) {
    for (int64_t i = 0; i < width; i += kLanes) {
      hn::Store(combine(d, hn::Load(d, lanes + i), hn::Load(d, lanes + i + width)), d, lanes + i);
    }
  }
  return fold_vector(d, hn::Load(d, lanes), combine);
}

struct AddLanes {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D /*d*/, hn::Vec<D> a, hn::Vec<D> b) const {
    return hn::Add(a, b);
  }
};

// The larger; NaN if either is.
struct MaxOrNan {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D /*d*/, hn::Vec<D> m, hn::Vec<D> x) const {
    return hn::IfThenElse(hn::Or(hn::Gt(x, m), hn::IsNaN(x)), x, m);
  }
};

template <class Step>
HWY_INLINE float sum_block_f32(int64_t n, const Step& step) {
  return reduce_block(RowTag(), n, 0.0f, step, AddLanes());
}

// The sum of a whole row. Like sum_vector of the reference.
template <class Step>
HWY_INLINE float sum_row(int64_t n, const Step& step) {
  if (n <= kSumBlock) return sum_block_f32(n, step);
  BlockSums<float> sums;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t size = n - begin < kSumBlock ? n - begin : kSumBlock;
    sums.add(sum_block_f32(size, [&](auto d, int64_t j, auto acc) HWY_ATTR { return step(d, begin + j, acc); }));
  }
  return sums.finish();
}

HWY_INLINE float max_row_block(const float* x, int64_t n) {
  return reduce_block(
      RowTag(), n, -std::numeric_limits<float>::infinity(),
      [x](auto d, int64_t j, auto m) HWY_ATTR { return MaxOrNan()(d, m, hn::LoadU(d, x + j)); }, MaxOrNan());
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
