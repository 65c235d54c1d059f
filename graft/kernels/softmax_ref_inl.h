#pragma once

// The scalar reference of softmax.h. Compiled twice (ref.h).

#include "graft/kernels/softmax_sums_ref_inl.h"
#include "graft/kernels/softmax_table.h"

namespace graft {
namespace {

void softmax_rows(View<const float, 2> x, View<float, 2> y, float* row_max, float* row_sum, bool /*stream*/) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float* in = x.row(i);
    float* out = y.row(i);
    const SoftmaxSums<float> s = softmax_sums(in, n);
    const float inverse = 1 / s.sum;
    for (int64_t j = 0; j < n; ++j) out[j] = exp_chain(in[j] - s.maximum) * inverse;
    // + 0: a zero of either sign is +0. S of nothing but -infinity is a sum of e^NaN.
    if (row_max != nullptr) row_max[i] = s.maximum + 0.0f;
    if (row_sum != nullptr) row_sum[i] = s.sum + (s.maximum - s.maximum);
  }
}

void log_softmax_rows(View<const float, 2> x, View<float, 2> y, bool /*stream*/) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float* in = x.row(i);
    float* out = y.row(i);
    const SoftmaxSums<float> s = softmax_sums(in, n);
    const float maximum = s.maximum + 0.0f, log_sum = log_chain(s.sum);
    for (int64_t j = 0; j < n; ++j) out[j] = (in[j] - maximum) - log_sum;
  }
}

// (maximum - target) first: it is small where the model is right, and rounding ln sum exp would cost its digits.
float row_loss(const SoftmaxSums<float>& s, float target) noexcept { return (s.maximum - target) + log_chain(s.sum); }

void cross_entropy_rows(View<const float, 2> logits, const CrossEntropyRows& rows) noexcept {
  for (int64_t i = 0; i < logits.extent(0); ++i) {
    const int32_t t = rows.targets[i];
    if (t == rows.ignore_index) {
      rows.loss[i] = 0;
      continue;
    }
    const float loss = row_loss(softmax_sums(logits.row(i), logits.extent(1)), logits.row(i)[t]);
    rows.loss[i] = rows.weight != nullptr ? rows.weight[t] * loss : loss;
  }
}

void cross_entropy_gradient_rows(View<const float, 2> logits, const CrossEntropyRows& rows, float scale,
                                 View<float, 2> grad, bool /*stream*/) noexcept {
  const int64_t n = logits.extent(1);
  for (int64_t i = 0; i < logits.extent(0); ++i) {
    const float* in = logits.row(i);
    float* out = grad.row(i);
    const int32_t t = rows.targets[i];
    if (t == rows.ignore_index) {
      rows.loss[i] = 0;
      std::fill(out, out + n, 0.0f);
      continue;
    }
    const SoftmaxSums<float> s = softmax_sums(in, n);
    rows.loss[i] = row_loss(s, in[t]);
    const float inverse = 1 / s.sum;
    for (int64_t j = 0; j < n; ++j) {
      const float p = exp_chain(in[j] - s.maximum) * inverse;
      out[j] = scale * (j == t ? p - 1 : p);
    }
  }
}

constexpr SoftmaxTable kTable = {softmax_rows, log_softmax_rows, cross_entropy_rows, cross_entropy_gradient_rows};

}  // namespace
}  // namespace graft
