#pragma once

// Shapes, inputs and naive float64 answers for the tests of the matrix products.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "graft/base/float16.h"
#include "graft/kernels/gemm.h"
#include "graft/kernels/test_support.h"

namespace graft::test {

// A matrix with a row stride of its own: what lies between the rows is NaN, so that reading it shows.
template <typename T>
struct GemmMatrix {
  std::vector<T> values;
  int64_t rows = 0, columns = 0, stride = 0;
  GemmMatrix() = default;
  GemmMatrix(int64_t r, int64_t c, int64_t padding = 0)
      : values(static_cast<size_t>(r * (c + padding)), T(NAN)), rows(r), columns(c), stride(c + padding) {}
  View<T, 2> view() { return View<T, 2>(values.data(), {rows, columns}, {stride, 1}); }
  View<const T, 2> cview() const { return View<const T, 2>(values.data(), {rows, columns}, {stride, 1}); }
  T& at(int64_t i, int64_t j) { return values[static_cast<size_t>(i * stride + j)]; }
  T at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * stride + j)]; }
};

// Uniform in [-1, 1), full mantissas, the same on every machine.
class Uniform {
 public:
  explicit Uniform(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  float next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-31f;
  }
  template <typename T>
  GemmMatrix<T> matrix(int64_t rows, int64_t columns, int64_t padding = 0) {
    GemmMatrix<T> m(rows, columns, padding);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) m.at(i, j) = static_cast<T>(next());
    }
    return m;
  }

 private:
  uint64_t state_;
};

inline Weight pack(Context& context, DType type, const GemmMatrix<float>& rows) {
  Weight w(type, rows.rows, rows.columns);
  std::vector<float> tight(static_cast<size_t>(rows.rows * rows.columns));
  for (int64_t i = 0; i < rows.rows; ++i) {
    for (int64_t j = 0; j < rows.columns; ++j) tight[static_cast<size_t>(i * rows.columns + j)] = rows.at(i, j);
  }
  w.pack_rows(context, 0, rows.rows, DType::kF32, tight.data());
  return w;
}

inline float rounded(DType type, float x) {
  return type == DType::kBF16 ? to_float(to_bf16(x)) : type == DType::kF16 ? to_float(to_f16(x)) : x;
}

}  // namespace graft::test
