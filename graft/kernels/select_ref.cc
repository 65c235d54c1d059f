// The scalar reference of the selections (select_table.h). Only comparisons: one build serves every CPU.

#include "graft/kernels/select_table.h"

namespace graft {
namespace {

Split split(const float* x, int64_t n, float low, float high, float* kept) noexcept {
  Split s = {0, 0, false};
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    s.low += v <= low ? 1 : 0;
    s.nan |= v != v;
    kept[s.between] = v;
    s.between += v > low && v < high ? 1 : 0;
  }
  return s;
}

int64_t not_below(const float* x, int64_t n, float low, int32_t first, int32_t* kept) noexcept {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    kept[count] = first + static_cast<int32_t>(i);
    count += x[i] < low ? 0 : 1;
  }
  return count;
}

constexpr SelectTable kTable = {split, not_below};

}  // namespace

const SelectTable& select_ref() noexcept { return kTable; }

}  // namespace graft
