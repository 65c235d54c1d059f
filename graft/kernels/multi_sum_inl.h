// Several sums of one block in one pass, each with the lanes and the tree of reduce_ref_inl.h, so each has the bits of a sum of its own.
// Include after hwy/highway.h and row_io_inl.h; compiled once per target.

#if defined(GRAFT_KERNELS_MULTI_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_MULTI_SUM_INL_H_
#undef GRAFT_KERNELS_MULTI_SUM_INL_H_
#else
#define GRAFT_KERNELS_MULTI_SUM_INL_H_
#endif

#include <utility>

#include "graft/kernels/row_io_inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Loops over arrays of vectors are spelt out by index sequences: where one stays a loop, the arrays live in memory.
template <size_t... I>
HWY_INLINE void add_halves(hn::Vec<RowTag>* v, std::index_sequence<I...>) {
  ((v[I] = hn::Add(v[I], v[I + sizeof...(I)])), ...);
}
// The tree over the vectors of 64 lanes.
HWY_INLINE float fold_lanes(hn::Vec<RowTag>* v) {
  constexpr int64_t kVectors = kSumLanes / kRowLanes;
  if constexpr (kVectors >= 16) add_halves(v, std::make_index_sequence<8>());
  if constexpr (kVectors >= 8) add_halves(v, std::make_index_sequence<4>());
  if constexpr (kVectors >= 4) add_halves(v, std::make_index_sequence<2>());
  v[0] = hn::Add(v[0], v[1]);
  return fold_vector(RowTag(), v[0], AddLanes());
}

// sums[s] = the sum over a block of n <= kSumBlock elements of term s. Of the 64 lanes only so many vectors are in flight as leave the
// sums in registers: where that is not all, the block, in L1, is read in parts.
template <int64_t kSums, class Step>
HWY_INLINE void fold_sums(int64_t n, float* sums, const Step& step) {
  using Row = hn::Vec<RowTag>;
  constexpr RowTag d;
  constexpr int64_t kVectors = kSumLanes / kRowLanes;
  constexpr int64_t kMost = HWY_MAX_BYTES == 64 || HWY_TARGET == HWY_NEON ? 24 : 12;  // registers for sums
  constexpr int64_t kAtOnce = kMost / kSums >= 4 ? 4 : kMost / kSums >= 2 ? 2 : 1;
  const int64_t whole = n / kSumLanes * kSumLanes;
#if !HWY_MEM_OPS_MIGHT_FAULT
  if constexpr (kAtOnce == kVectors) {  // nothing goes through memory
    [&]<size_t... K, size_t... I, size_t... S>(std::index_sequence<K...>, std::index_sequence<I...>,
                                               std::index_sequence<S...>) HWY_ATTR {
      Row acc[] = {((void)K, hn::Zero(d))...};
      const WholeIo<RowTag> io;
      for (int64_t j = 0; j < whole; j += kSumLanes) {
        ((step(io, j + static_cast<int64_t>(I) * kRowLanes, acc + I * kSums)), ...);
      }
      const auto rest = [&](int64_t j, Row* lanes) HWY_ATTR {
        if (j >= n) return;
        const TailIo tail(n - j < kRowLanes ? n - j : kRowLanes);
        Row with[] = {lanes[S]...};
        step(tail, j, with);
        ((lanes[S] = hn::IfThenElse(tail.mask, with[S], lanes[S])), ...);
      };
      if (whole < n) ((rest(whole + static_cast<int64_t>(I) * kRowLanes, acc + I * kSums)), ...);
      const auto sum_of = [&](auto s) HWY_ATTR {
        Row v[] = {acc[I * kSums + s()]...};
        return fold_lanes(v);
      };
      ((sums[S] = sum_of(std::integral_constant<size_t, S>())), ...);
    }
    (std::make_index_sequence<static_cast<size_t>(kAtOnce * kSums)>(),
     std::make_index_sequence<static_cast<size_t>(kAtOnce)>(), std::make_index_sequence<static_cast<size_t>(kSums)>());
    return;
  }
#endif
  HWY_ALIGN float lanes[kSums * kSumLanes];
  for (int64_t part = 0; part < kVectors; part += kAtOnce) {
    [&]<size_t... K, size_t... I>(std::index_sequence<K...>, std::index_sequence<I...>) HWY_ATTR {
      Row acc[] = {((void)K, hn::Zero(d))...};
      const WholeIo<RowTag> io;
      float* to = lanes + part * kRowLanes;
      for (int64_t j = part * kRowLanes; j < whole; j += kSumLanes) {
        ((step(io, j + static_cast<int64_t>(I) * kRowLanes, acc + I * kSums)), ...);
      }
      ((hn::Store(acc[K], d, to + K % kSums * kSumLanes + K / kSums * kRowLanes)), ...);
    }
    (std::make_index_sequence<static_cast<size_t>(kAtOnce * kSums)>(),
     std::make_index_sequence<static_cast<size_t>(kAtOnce)>());
  }
  const auto late = [&](const auto& io, int64_t j) HWY_ATTR {  // a vector or a lane of the rest
    float* at = lanes + (j - whole);
    hn::Vec<decltype(io.d)> acc[kSums];
    for (int64_t s = 0; s < kSums; ++s) acc[s] = io.load(at + s * kSumLanes);
    step(io, j, acc);
    for (int64_t s = 0; s < kSums; ++s) io.store(acc[s], at + s * kSumLanes);
  };
  int64_t j = whole;
  for (; j + kRowLanes <= n; j += kRowLanes) late(WholeIo<RowTag>(), j);
  each_rest(j, n - j, late);
  for (int64_t s = 0; s < kSums; ++s) {
    Row v[kVectors];
    for (int64_t i = 0; i < kVectors; ++i) v[i] = hn::Load(d, lanes + s * kSumLanes + i * kRowLanes);
    sums[s] = fold_lanes(v);
  }
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
