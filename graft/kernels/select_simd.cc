#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/select_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/select_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// Kept vectors are compressed in a register and stored whole: what lies behind them has been read, or is not used yet.
Split split(const float* x, int64_t n, float low, float high, float* kept) noexcept {
  const RowTag d;
  const auto lo = hn::Set(d, low), hi = hn::Set(d, high);
  Split s = {0, 0, false};
  auto nans = hn::MaskFromVec(hn::Zero(d));
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) {
    const auto v = hn::LoadU(d, x + i);
    const auto above = hn::Gt(v, lo);
    const auto mask = hn::And(above, hn::Lt(v, hi));
    nans = hn::Or(nans, hn::IsNaN(v));
    s.low += kRowLanes - static_cast<int64_t>(hn::CountTrue(d, above));
    hn::StoreU(hn::Compress(v, mask), d, kept + s.between);
    s.between += static_cast<int64_t>(hn::CountTrue(d, mask));
  }
  s.nan = !hn::AllFalse(d, nans);
  for (; i < n; ++i) {
    const float v = x[i];
    s.nan |= v != v;
    s.low += v <= low ? 1 : 0;
    if (v > low && v < high) kept[s.between++] = v;
  }
  return s;  // with a NaN `low` counts it too, and the answer is NaN whatever the counts
}

int64_t not_below(const float* x, int64_t n, float low, int32_t first, int32_t* kept) noexcept {
  const RowTag d;
  const hn::RebindToSigned<RowTag> di;
  const auto lo = hn::Set(d, low);
  int64_t count = 0, i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) {
    const auto mask = hn::Not(hn::Lt(hn::LoadU(d, x + i), lo));
    if (hn::AllFalse(d, mask)) continue;  // nearly always
    hn::StoreU(hn::Compress(hn::Iota(di, first + static_cast<int32_t>(i)), hn::RebindMask(di, mask)), di, kept + count);
    count += static_cast<int64_t>(hn::CountTrue(d, mask));
  }
  for (; i < n; ++i) {
    if (!(x[i] < low)) kept[count++] = first + static_cast<int32_t>(i);
  }
  return count;
}

}  // namespace

constexpr SelectTable kSelectTable = {split, not_below};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const SelectTable* select_simd() noexcept { return GRAFT_SIMD_TABLE(kSelectTable); }
}  // namespace graft
#endif
