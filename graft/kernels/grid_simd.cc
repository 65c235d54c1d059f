#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/grid_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/pairs_inl.h"
// clang-format on

#include <utility>

#include "graft/kernels/grid_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

using RowTag = hn::CappedTag<float, 16>;
using LaneTag = hn::CappedTag<float, 1>;
constexpr int64_t kRowLanes = static_cast<int64_t>(hn::MaxLanes(RowTag()));

#include "graft/kernels/grid_chains_inl.h"

}  // namespace

constexpr GridTable kGridTable = {heat, wave, stencil};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const GridTable* grid_simd() noexcept { return GRAFT_SIMD_TABLE(kGridTable); }
}  // namespace graft
#endif
