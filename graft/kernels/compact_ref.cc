// The scalar reference of the compactions (compact_table.h). There is no arithmetic in it: one build serves every CPU.

#include "graft/kernels/compact_table.h"

namespace graft {
namespace {

template <typename Keep>
int64_t count(int64_t n, Keep&& keep) noexcept {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) kept += keep(i) ? 1 : 0;
  return kept;
}
int64_t count_above(const float* x, float threshold, int64_t n) noexcept {
  return count(n, [=](int64_t i) { return x[i] > threshold; });
}
int64_t count_mask(const uint8_t* mask, int64_t n) noexcept {
  return count(n, [=](int64_t i) { return mask[i] != 0; });
}

// Stores first and advances after: no branch on the data.
template <typename Keep>
int64_t keep_each(const float* x, int64_t n, float* y, int64_t room, Keep&& keep) noexcept {
  int64_t kept = 0;
  for (int64_t i = 0; i < n && kept < room; ++i) {
    y[kept] = x[i];
    kept += keep(i) ? 1 : 0;
  }
  return kept;
}
int64_t keep_above(const float* x, float threshold, int64_t n, float* y, int64_t room, bool /*stream*/) noexcept {
  return keep_each(x, n, y, room, [=](int64_t i) { return x[i] > threshold; });
}
int64_t keep_mask(const float* x, const uint8_t* mask, int64_t n, float* y, int64_t room, bool /*stream*/) noexcept {
  return keep_each(x, n, y, room, [=](int64_t i) { return mask[i] != 0; });
}

constexpr CompactTable kTable = {count_above, count_mask, keep_above, keep_mask};

}  // namespace

const CompactTable& compact_ref() noexcept { return kTable; }

}  // namespace graft
