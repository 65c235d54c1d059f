#pragma once

#include <cstdint>

namespace graft {

// What layout.cc runs on a part. `stream`: the output leaves the cache; it is stored past it where its lines are whole.
struct LayoutTable {
  // y[c * y_stride + r] = x[r * x_stride + c].
  void (*transpose)(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t columns,
                    bool stream) noexcept;
  // n records of 2, 3 or 4 fields, and their fields in arrays `stride` apart.
  void (*split)(const float* records, int64_t fields, float* arrays, int64_t stride, int64_t n, bool stream) noexcept;
  void (*join)(const float* arrays, int64_t stride, float* records, int64_t fields, int64_t n, bool stream) noexcept;
};
const LayoutTable& layout_ref() noexcept;
const LayoutTable* layout_simd() noexcept;  // null: run the reference

}  // namespace graft
