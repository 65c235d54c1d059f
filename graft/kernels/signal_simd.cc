#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/signal_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/pairs_inl.h"
// clang-format on

#include <utility>

#include "graft/kernels/signal_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

using RowTag = hn::CappedTag<float, 16>;
using LaneTag = hn::CappedTag<float, 1>;
constexpr int64_t kRowLanes = static_cast<int64_t>(hn::MaxLanes(RowTag()));

template <class D>
HWY_INLINE hn::Vec<D> turn(D d, uint32_t base, const uint32_t* offset) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto t = hn::Add(hn::Set(du, base), hn::LoadU(du, offset));
  return hn::Mul(hn::ConvertTo(d, hn::BitCast(di, t)), hn::Set(d, 0x1p-32f));
}

#include "graft/kernels/signal_chains_inl.h"

}  // namespace

constexpr SignalTable kSignalTable = {correlate, window, join, split, subtract, divide};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const SignalTable* signal_simd() noexcept { return GRAFT_SIMD_TABLE(kSignalTable); }
}  // namespace graft
#endif
