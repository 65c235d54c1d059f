#pragma once

// The scalar reference of signal.h: signal_chains_inl.h over one lane. Compiled twice (ref.h).

#include <utility>

#include "graft/kernels/scalar_memory_inl.h"
#include "graft/kernels/signal_table.h"

namespace graft {
namespace {

namespace hn = scalar_lanes;
using RowTag = hn::FloatTag;
using LaneTag = hn::FloatTag;
constexpr int64_t kRowLanes = 1;

// A 32-bit fraction of a turn as a signed one.
inline float turn(RowTag, uint32_t base, const uint32_t* offset) {
  return static_cast<float>(static_cast<int32_t>(base + *offset)) * 0x1p-32f;
}

#define HWY_INLINE inline
#define HWY_ATTR
#include "graft/kernels/signal_chains_inl.h"
#undef HWY_INLINE
#undef HWY_ATTR

constexpr SignalTable kTable = {correlate, window, join, split, subtract, divide};

}  // namespace
}  // namespace graft
