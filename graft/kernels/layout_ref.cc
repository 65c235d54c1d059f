// The scalar reference of the copies (layout_table.h). There is no arithmetic in it: one build serves every CPU.

#include <algorithm>

#include "graft/kernels/layout_table.h"

namespace graft {
namespace {

void transpose(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t columns,
               bool /*stream*/) noexcept {
  constexpr int64_t kTile = 16;  // a cache line wide
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(rows, r0 + kTile);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = r0; r < r1; ++r) y[c * y_stride + r] = x[r * x_stride + c];
    }
  }
}

void split(const float* records, int64_t fields, float* arrays, int64_t stride, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t f = 0; f < fields; ++f) arrays[f * stride + i] = records[i * fields + f];
  }
}
void join(const float* arrays, int64_t stride, float* records, int64_t fields, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t f = 0; f < fields; ++f) records[i * fields + f] = arrays[f * stride + i];
  }
}

constexpr LayoutTable kTable = {transpose, split, join};

}  // namespace

const LayoutTable& layout_ref() noexcept { return kTable; }

}  // namespace graft
