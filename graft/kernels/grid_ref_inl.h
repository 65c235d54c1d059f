#pragma once

// The scalar reference of grid.h: grid_chains_inl.h over one lane. Compiled twice (ref.h).

#include <utility>

#include "graft/kernels/grid_table.h"
#include "graft/kernels/scalar_memory_inl.h"

namespace graft {
namespace {

namespace hn = scalar_lanes;
using RowTag = hn::FloatTag;
using LaneTag = hn::FloatTag;
constexpr int64_t kRowLanes = 1;

#define HWY_INLINE inline
#define HWY_ATTR
#include "graft/kernels/grid_chains_inl.h"
#undef HWY_INLINE
#undef HWY_ATTR

constexpr GridTable kTable = {heat, wave, stencil};

}  // namespace
}  // namespace graft
