#pragma once

// The scalar reference of the transforms: fft_chains_inl.h over one lane. Compiled twice (ref.h).

#include "graft/kernels/fft_table.h"
#include "graft/kernels/scalar_memory_inl.h"

namespace graft {
namespace {

namespace hn = scalar_lanes;
using RowTag = hn::FloatTag;
using LaneTag = hn::FloatTag;
constexpr int64_t kRowLanes = 1;

inline void store_columns(RowTag, float a, float b, float c, float e, float* to, int64_t /*stride*/) {
  to[0] = a;
  to[1] = b;
  to[2] = c;
  to[3] = e;
}

#define HWY_INLINE inline
#define HWY_NOINLINE
#define HWY_ATTR
#define HWY_ALIGN
#include "graft/kernels/fft_chains_inl.h"
#undef HWY_INLINE
#undef HWY_NOINLINE
#undef HWY_ATTR
#undef HWY_ALIGN

constexpr FftTable kTable = {direct, columns, rows, multiply, real_pairs, power_pairs, power};

}  // namespace
}  // namespace graft
