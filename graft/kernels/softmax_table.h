#pragma once

#include <cstdint>

#include "graft/base/view.h"

namespace graft {

// sum_v exp(z[v] - maximum) = sum, so that log sum exp z = maximum + log(sum). A NaN in z makes the sum NaN; the maximum may miss it.
template <typename T>
struct SoftmaxSums {
  T maximum, sum;
};

// What a row of cross-entropy needs beside its logits. weight may be null.
struct CrossEntropyRows {
  const int32_t* targets;
  int32_t ignore_index;
  const float* weight;
  float* loss;
};

// What softmax.cc runs on a range of rows. `stream`: the output leaves the cache, so store past it.
struct SoftmaxTable {
  // row_max and row_sum may be null.
  void (*softmax)(View<const float, 2> x, View<float, 2> y, float* row_max, float* row_sum, bool stream) noexcept;
  void (*log_softmax)(View<const float, 2> x, View<float, 2> y, bool stream) noexcept;
  void (*cross_entropy)(View<const float, 2> logits, const CrossEntropyRows& rows) noexcept;
  void (*cross_entropy_gradient)(View<const float, 2> logits, const CrossEntropyRows& rows, float scale,
                                 View<float, 2> grad, bool stream) noexcept;
};
const SoftmaxTable& softmax_ref() noexcept;
const SoftmaxTable& softmax_fma() noexcept;
const SoftmaxTable* softmax_simd() noexcept;  // null: run the reference

}  // namespace graft
