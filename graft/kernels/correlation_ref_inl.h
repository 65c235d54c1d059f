#pragma once

// The scalar reference of correlation and covariance (correlation_table.h). Compiled twice (ref.h).

#include <cmath>

#include "graft/kernels/correlation_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

template <typename Term>
float sum_of(int64_t n, Term&& term) noexcept {
  return sum_block<float>(0, n, term);
}

PairSums sums(const float* x, const float* y, int64_t n) noexcept {
  return {sum_of(n, [=](float lane, int64_t j) { return lane + x[j]; }),
          sum_of(n, [=](float lane, int64_t j) { return lane + y[j]; })};
}
PairMoments moments(const float* x, const float* y, float x_centre, float y_centre, int64_t n) noexcept {
  const auto d = [=](int64_t j) { return x[j] - x_centre; };
  const auto e = [=](int64_t j) { return y[j] - y_centre; };
  return {sum_of(n, [=](float lane, int64_t j) { return lane + d(j); }),
          sum_of(n, [=](float lane, int64_t j) { return lane + e(j); }),
          sum_of(n, [=](float lane, int64_t j) { return std::fma(d(j), d(j), lane); }),
          sum_of(n, [=](float lane, int64_t j) { return std::fma(e(j), e(j), lane); }),
          sum_of(n, [=](float lane, int64_t j) { return std::fma(d(j), e(j), lane); })};
}
float product(const float* x, const float* w, int64_t n) noexcept {
  return sum_of(n, [=](float lane, int64_t j) { return std::fma(w[j], x[j], lane); });
}
PairSums weighted(const float* x, const float* w, int64_t n) noexcept {
  return {product(x, w, n), sum_of(n, [=](float lane, int64_t j) { return lane + w[j]; })};
}

void centre_panels(const float* x, int64_t stride, int64_t rows, int64_t columns, float* panels, float* centre,
                   float* rest) noexcept {
  const int64_t padded = (columns + kPanel - 1) / kPanel * kPanel;
  for (int64_t c = 0; c < padded; ++c) {
    float* panel = panels + c / kPanel * kPanelSize + c % kPanel;
    float sum = 0;
    if (c < columns) {
      for (int64_t r = 0; r < rows; ++r) sum += x[r * stride + c];
    }
    centre[c] = sum / static_cast<float>(rows);
    rest[c] = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const float v = c < columns ? x[r * stride + c] - centre[c] : 0.0f;
      panel[r * kPanel] = v;
      rest[c] += v;
    }
  }
}

void products(const float* panels, int64_t rows, int64_t at, int64_t num_panels, float* y, int64_t stride) noexcept {
  const float* own = panels + at * kPanelSize;
  for (int64_t a = 0; a < kPanel; ++a) {
    for (int64_t p = at; p < num_panels; ++p) {
      const float* other = panels + p * kPanelSize;
      for (int64_t b = 0; b < kPanel; ++b) {
        float sum = 0;
        for (int64_t r = 0; r < rows; ++r) sum = std::fma(own[r * kPanel + a], other[r * kPanel + b], sum);
        y[a * stride + p * kPanel + b] = sum;
      }
    }
  }
}

void merge(const float* block, const double* rest, const double* delta, double p, double q, double* m,
           int64_t n) noexcept {
  for (int64_t b = 0; b < n; ++b) {
    m[b] += std::fma(q, delta[b], std::fma(p, rest[b], static_cast<double>(block[b])));
  }
}

constexpr CorrelationTable kTable = {sums, moments, product, weighted, centre_panels, products, merge};

}  // namespace
}  // namespace graft
