#pragma once

// The scalar reference of integrate.h: integrate_chains_inl.h over one lane. Compiled twice (ref.h).

#include <utility>

#include "graft/kernels/integrate_table.h"
#include "graft/kernels/scalar_memory_inl.h"

namespace graft {
namespace {

namespace hn = scalar_lanes;
using RowTag = hn::FloatTag;
using LaneTag = hn::FloatTag;
constexpr int64_t kRowLanes = 1;

#define HWY_INLINE inline
#define HWY_ATTR
#include "graft/kernels/integrate_chains_inl.h"
#undef HWY_INLINE
#undef HWY_ATTR

constexpr IntegrateTable kTable = {rk4, verlet, integrand};

}  // namespace
}  // namespace graft
