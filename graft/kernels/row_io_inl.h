// Rows of f32 of any length at full speed: the end of a row is one masked vector where the CPU can load past a boundary without a fault
// (x86), else single lanes. Sums and maxima keep the lanes and the tree of reduce_ref_inl.h, so the same bits. Include after
// hwy/highway.h and reduce_inl.h; compiled once per target.
//
// Bodies are generic lambdas f(io, j, …): `io` loads and stores the lanes at j, io.d is their tag.

#if defined(GRAFT_KERNELS_ROW_IO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_ROW_IO_INL_H_
#undef GRAFT_KERNELS_ROW_IO_INL_H_
#else
#define GRAFT_KERNELS_ROW_IO_INL_H_
#endif

#include <utility>

#include "graft/kernels/reduce_inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// All lanes of D.
template <class D>
struct WholeIo {
  D d;
  HWY_INLINE hn::Vec<D> load(const float* p) const { return hn::LoadU(d, p); }
  HWY_INLINE void store(hn::Vec<D> v, float* p) const { hn::StoreU(v, d, p); }
  // Bytes as u32.
  HWY_INLINE auto load_bytes(const uint8_t* p) const {
    return hn::PromoteTo(hn::RebindToUnsigned<D>(), hn::LoadU(hn::Rebind<uint8_t, D>(), p));
  }
};

#if !HWY_MEM_OPS_MIGHT_FAULT
constexpr bool kMaskedTails = true;
// The first lanes of a vector; the others load as 0 and are not stored.
struct TailIo {
  RowTag d;
  hn::Mask<RowTag> mask;
  int64_t count;
  explicit HWY_INLINE TailIo(int64_t lanes) : mask(hn::FirstN(RowTag(), static_cast<size_t>(lanes))), count(lanes) {}
  HWY_INLINE hn::Vec<RowTag> load(const float* p) const { return hn::MaskedLoad(mask, d, p); }
  HWY_INLINE void store(hn::Vec<RowTag> v, float* p) const { hn::BlendedStore(v, mask, d, p); }
  HWY_INLINE auto load_bytes(const uint8_t* p) const {  // AVX2 has no masked load of bytes
    HWY_ALIGN uint8_t bytes[kRowLanes] = {};
    for (int64_t i = 0; i < count; ++i) bytes[i] = p[i];
    return hn::PromoteTo(hn::RebindToUnsigned<RowTag>(), hn::Load(hn::Rebind<uint8_t, RowTag>(), bytes));
  }
};
#else
constexpr bool kMaskedTails = false;
#endif

// f(io, j) for the `n` < kRowLanes elements from j on.
template <class F>
HWY_INLINE void each_rest(int64_t j, int64_t n, F&& f) {
#if !HWY_MEM_OPS_MIGHT_FAULT
  if (n > 0) f(TailIo(n), j);
#else
  for (int64_t k = 0; k < n; ++k) f(WholeIo<LaneTag>(), j + k);
#endif
}

// f(io, j) for every j in [0, n).
template <class F>
HWY_INLINE void each_lane(int64_t n, F&& f) {
  int64_t j = 0;
  for (; j + kRowLanes <= n; j += kRowLanes) f(WholeIo<RowTag>(), j);
  each_rest(j, n - j, f);
}

// y[j] = value(io, j) for every j in [0, n). `stream`: past the cache, which whole aligned vectors need; fence_stream() when done.
template <class Value>
HWY_INLINE void fill_row(float* y, int64_t n, bool stream, const Value& value) {
  const auto put = [&](const auto& io, int64_t j) HWY_ATTR { io.store(value(io, j), y + j); };
  int64_t j = 0;
  if (stream) {
    const auto apart = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float) % kRowLanes);
    const int64_t head = apart == 0 ? 0 : kRowLanes - apart;
    j = head < n ? head : n;
    each_rest(0, j, put);
    for (; j + kRowLanes <= n; j += kRowLanes) {
      const WholeIo<RowTag> io;
      hn::Stream(value(io, j), io.d, y + j);
    }
  } else {
    for (; j + kRowLanes <= n; j += kRowLanes) put(WholeIo<RowTag>(), j);
  }
  each_rest(j, n - j, put);
}

HWY_INLINE void fence_stream(bool stream) {
  if (stream) hwy::FlushStream();
}

// The upper part of the tree. Constant indices, so that acc stays in registers.
template <int64_t kCount, class V, class Combine>
HWY_INLINE V join_vectors(V* acc, const Combine& combine) {
  if constexpr (kCount == 1) {
    return acc[0];
  } else {
    [&]<size_t... I>(std::index_sequence<I...>) HWY_ATTR {
      ((acc[I] = combine(RowTag(), acc[I], acc[I + kCount / 2])), ...);
    }
    (std::make_index_sequence<static_cast<size_t>(kCount / 2)>());
    return join_vectors<kCount / 2>(acc, combine);
  }
}

// One block, n at most kSumBlock: lane i mod 64 takes in element i by step(io, j, lanes), from `start`; combine joins the lanes up the
// tree. Where 64 lanes fill at most eight vectors nothing goes through memory.
template <class Step, class Combine>
HWY_INLINE float fold_block(int64_t n, float start, const Step& step, const Combine& combine) {
  constexpr int64_t kVectors = kSumLanes / kRowLanes;
  if constexpr (kMaskedTails && kVectors <= 8) {
    return [&]<size_t... I>(std::index_sequence<I...>) HWY_ATTR {
      const WholeIo<RowTag> whole;
      hn::Vec<RowTag> acc[kVectors] = {((void)I, hn::Set(RowTag(), start))...};
      int64_t j = 0;
      for (; j + kSumLanes <= n; j += kSumLanes) {
        ((acc[I] = step(whole, j + static_cast<int64_t>(I) * kRowLanes, acc[I])), ...);
      }
#if !HWY_MEM_OPS_MIGHT_FAULT
      const auto rest = [&](int64_t at, hn::Vec<RowTag> lanes) HWY_ATTR {
        if (at >= n) return lanes;
        const TailIo io(n - at < kRowLanes ? n - at : kRowLanes);
        return hn::IfThenElse(io.mask, step(io, at, lanes), lanes);
      };
      ((acc[I] = rest(j + static_cast<int64_t>(I) * kRowLanes, acc[I])), ...);
#endif
      return fold_vector(RowTag(), join_vectors<kVectors>(acc, combine), combine);
    }
    (std::make_index_sequence<static_cast<size_t>(kVectors)>());
  } else {
    return reduce_block(
        RowTag(), n, start, [&](auto d, int64_t j, auto acc) HWY_ATTR { return step(WholeIo<decltype(d)>(), j, acc); },
        combine);
  }
}

// Two sums over the same elements in one pass, for targets where both fit the registers: step(io, j, left, right) takes in the terms at j.
#if !HWY_MEM_OPS_MIGHT_FAULT
template <class Step>
HWY_INLINE void fold_two_blocks(int64_t n, const Step& step, float* a, float* b) {
  constexpr int64_t kVectors = kSumLanes / kRowLanes;
  [&]<size_t... I>(std::index_sequence<I...>) HWY_ATTR {
    const WholeIo<RowTag> whole;
    const auto zero = hn::Zero(RowTag());
    hn::Vec<RowTag> left[kVectors] = {((void)I, zero)...}, right[kVectors] = {((void)I, zero)...};
    int64_t j = 0;
    for (; j + kSumLanes <= n; j += kSumLanes) {
      (step(whole, j + static_cast<int64_t>(I) * kRowLanes, left[I], right[I]), ...);
    }
    const auto rest = [&](int64_t at, hn::Vec<RowTag>& l, hn::Vec<RowTag>& r) HWY_ATTR {
      if (at >= n) return;
      const TailIo io(n - at < kRowLanes ? n - at : kRowLanes);
      auto more_l = l, more_r = r;
      step(io, at, more_l, more_r);
      l = hn::IfThenElse(io.mask, more_l, l);
      r = hn::IfThenElse(io.mask, more_r, r);
    };
    (rest(j + static_cast<int64_t>(I) * kRowLanes, left[I], right[I]), ...);
    *a = fold_vector(RowTag(), join_vectors<kVectors>(left, AddLanes()), AddLanes());
    *b = fold_vector(RowTag(), join_vectors<kVectors>(right, AddLanes()), AddLanes());
  }
  (std::make_index_sequence<static_cast<size_t>(kVectors)>());
}
#endif

// The sum of a row, blocks of 4,096 folded as sum_vector of the reference folds them. step as in fold_block.
template <class Step>
HWY_INLINE float row_sum(int64_t n, const Step& step) {
  if (n <= kSumBlock) return fold_block(n, 0.0f, step, AddLanes());
  BlockSums<float> sums;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t size = n - begin < kSumBlock ? n - begin : kSumBlock;
    sums.add(fold_block(
        size, 0.0f, [&](const auto& io, int64_t j, auto acc) HWY_ATTR { return step(io, begin + j, acc); },
        AddLanes()));
  }
  return sums.finish();
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
