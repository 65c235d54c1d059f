#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/positions_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/positions_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

template <class D, class V>
HWY_INLINE void store_as(D d, V v, double* to) {
  hn::StoreU(v, d, to);
}
template <class D, class V>
HWY_INLINE void store_as(D /*d*/, V v, float* to) {
  const hn::Rebind<float, D> df;
  hn::StoreU(hn::DemoteTo(df, v), df, to);
}

template <class T>
void join(Rotations<const double> a, Rotations<const double> b, Rotations<T> to, int64_t n) noexcept {
  const auto at = [=](auto d, int64_t j) HWY_ATTR {
    const auto ac = hn::LoadU(d, a.cos + j), as = hn::LoadU(d, a.sin + j);
    const auto bc = hn::LoadU(d, b.cos + j), bs = hn::LoadU(d, b.sin + j);
    store_as(d, hn::MulSub(ac, bc, hn::Mul(as, bs)), to.cos + j);
    store_as(d, hn::MulAdd(as, bc, hn::Mul(ac, bs)), to.sin + j);
  };
  const hn::CappedTag<double, 8> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) at(d, j);
  for (; j < n; ++j) at(hn::CappedTag<double, 1>(), j);
}

void alibi_row(const float* scores, float slope, int64_t distance, float* y, int64_t n, bool stream) noexcept {
  const auto value = [=](auto d, int64_t j) HWY_ATTR {
    const auto apart = hn::Sub(hn::Set(d, static_cast<float>(distance)), hn::Iota(d, static_cast<float>(j)));
    return hn::NegMulAdd(hn::Set(d, slope), apart, hn::LoadU(d, scores + j));
  };
  int64_t j = 0;
  if (stream) {
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float) % kRowLanes);
    const int64_t head = beyond == 0 ? 0 : kRowLanes - beyond;
    for (; j < n && j < head; ++j) hn::StoreU(value(LaneTag(), j), LaneTag(), y + j);
    for (; j + kRowLanes <= n; j += kRowLanes) hn::Stream(value(RowTag(), j), RowTag(), y + j);
    hwy::FlushStream();
  }
  for (; j + kRowLanes <= n; j += kRowLanes) hn::StoreU(value(RowTag(), j), RowTag(), y + j);
  for (; j < n; ++j) hn::StoreU(value(LaneTag(), j), LaneTag(), y + j);
}

}  // namespace

constexpr PositionsTable kPositionsTable = {join<double>, join<float>, alibi_row};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const PositionsTable* positions_simd() noexcept { return GRAFT_SIMD_TABLE(kPositionsTable); }
}  // namespace graft
#endif
