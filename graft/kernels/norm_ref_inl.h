#pragma once

#include <cmath>

#include "graft/base/view.h"
#include "graft/kernels/norm_table.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
void rms_norm_rows(View<const T, 2> x, const T* weight, T eps, View<T, 2> y, T* rrms, bool /*stream*/) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const T squares = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(in[j], in[j], lane); });
    const T r = T{1} / std::sqrt(squares / static_cast<T>(n) + eps);
    if (rrms != nullptr) rrms[i] = r;
    for (int64_t j = 0; j < n; ++j) out[j] = (in[j] * r) * weight[j];
  }
}

template <typename T>
void rms_norm_backward_rows(View<const T, 2> dy, View<const T, 2> x, const T* weight, const T* rrms,
                            View<const T, 2> residual, View<T, 2> dx, T* dweight) noexcept {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T *up = dy.row(i), *in = x.row(i), r = rrms[i];
    T* out = dx.row(i);
    const T dot = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(up[j] * weight[j], in[j], lane); });
    const T c = (r * r) * (dot / static_cast<T>(n));
    const T* add = residual.data() != nullptr ? residual.row(i) : nullptr;
    for (int64_t j = 0; j < n; ++j) {
      if (dweight != nullptr) dweight[j] = std::fma(up[j], in[j] * r, dweight[j]);
      const T inner = std::fma(-in[j], c, up[j] * weight[j]);
      out[j] = add != nullptr ? std::fma(r, inner, add[j]) : r * inner;
    }
  }
}

// Chains over blocks of rows: add(sums, row) takes in a row, the sums of a block are added to `total`.
template <typename T, typename AddRow>
void sum_row_blocks(int64_t rows, int64_t n, T* total, const AddRow& add_row) noexcept {
  T sums[kStripe];
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    for (int64_t j = 0; j < n; ++j) sums[j] = 0;
    for (int64_t i = begin; i < std::min(begin + kRowSumBlock, rows); ++i) add_row(sums, i);
    for (int64_t j = 0; j < n; ++j) total[j] += sums[j];
  }
}

template <typename T>
void rms_norm_dweight_columns(View<const T, 2> dy, View<const T, 2> x, const T* rrms, T* dweight) noexcept {
  const int64_t n = x.extent(1);
  sum_row_blocks(x.extent(0), n, dweight, [&](T* sums, int64_t i) {
    const T *up = dy.row(i), *in = x.row(i), r = rrms[i];
    for (int64_t j = 0; j < n; ++j) sums[j] = std::fma(up[j], in[j] * r, sums[j]);
  });
}

// Of a row: the rounded mean c, the rest d of the mean, and rstd.
template <typename T>
struct Moments {
  T centre, rest, rstd;
};
template <typename T>
Moments<T> moments_of(const T* x, int64_t n, T eps) noexcept {
  const T count = static_cast<T>(n);
  const T c = sum_vector<T>(n, [&](T lane, int64_t j) { return lane + x[j]; }) / count;
  const T d = sum_vector<T>(n, [&](T lane, int64_t j) { return lane + (x[j] - c); }) / count;
  const T squares = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(x[j] - c, x[j] - c, lane); }) / count;
  const T var = std::fma(-d, d, squares);
  return {c, d, T{1} / std::sqrt((var < 0 ? T{0} : var) + eps)};
}

template <typename T>
void layer_norm_rows(View<const T, 2> x, const Affine<T>& affine, int64_t first, T eps, View<T, 2> y, T* mean, T* rstd,
                     bool /*stream*/) noexcept {
  const int64_t n = x.extent(1), channels = n / affine.length;
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const Moments<T> m = moments_of(in, n, eps);
    if (mean != nullptr) mean[i] = m.centre + m.rest;
    if (rstd != nullptr) rstd[i] = m.rstd;
    const T shift = -m.rest * m.rstd;
    const int64_t offset = (first + i) % affine.groups * channels;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t channel = offset + j / affine.length;
      out[j] = std::fma(std::fma(in[j] - m.centre, m.rstd, shift), affine.gamma[channel], affine.beta[channel]);
    }
  }
}

template <typename T>
void layer_norm_dropout_rows(View<const T, 2> x, const Affine<T>& affine, T eps, View<const uint8_t, 2> mask, T scale,
                             View<const T, 2> residual, View<T, 2> y, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T* in = x.row(i);
    const Moments<T> m = moments_of(in, x.extent(1), eps);
    const T shift = -m.rest * m.rstd;
    for (int64_t j = 0; j < x.extent(1); ++j) {
      const T normed = std::fma(in[j] - m.centre, m.rstd, shift);
      const T kept = mask.row(i)[j] != 0 ? scale : T{0};
      y.row(i)[j] = std::fma(std::fma(normed, affine.gamma[j], affine.beta[j]), kept, residual.row(i)[j]);
    }
  }
}

template <typename T>
void layer_norm_backward_rows(View<const T, 2> dy, View<const T, 2> x, const T* gamma, const T* mean, const T* rstd,
                              View<T, 2> dx, T* dgamma, T* dbeta) noexcept {
  const int64_t n = x.extent(1);
  const T count = static_cast<T>(n);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const T *up = dy.row(i), *in = x.row(i), m = mean[i], r = rstd[i];
    T* out = dx.row(i);
    const auto normed = [&](int64_t j) { return (in[j] - m) * r; };
    const T a = sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(up[j], gamma[j], lane); }) / count;
    const T b =
        sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(up[j] * gamma[j], normed(j), lane); }) / count;
    for (int64_t j = 0; j < n; ++j) {
      const T hat = normed(j);
      if (dgamma != nullptr) {
        dgamma[j] = std::fma(up[j], hat, dgamma[j]);
        dbeta[j] += up[j];
      }
      out[j] = r * std::fma(-hat, b, std::fma(up[j], gamma[j], -a));
    }
  }
}

template <typename T>
void layer_norm_dweight_columns(View<const T, 2> dy, View<const T, 2> x, const T* mean, const T* rstd, T* dgamma,
                                T* dbeta) noexcept {
  const int64_t n = x.extent(1);
  sum_row_blocks(x.extent(0), n, dgamma, [&](T* sums, int64_t i) {
    for (int64_t j = 0; j < n; ++j) sums[j] = std::fma(dy.row(i)[j], (x.row(i)[j] - mean[i]) * rstd[i], sums[j]);
  });
  sum_row_blocks(x.extent(0), n, dbeta, [&](T* sums, int64_t i) {
    for (int64_t j = 0; j < n; ++j) sums[j] += dy.row(i)[j];
  });
}

template <typename T>
constexpr NormTable<T> kTable = {
    rms_norm_rows<T>,           rms_norm_backward_rows<T>,   rms_norm_dweight_columns<T>,  layer_norm_rows<T>,
    layer_norm_dropout_rows<T>, layer_norm_backward_rows<T>, layer_norm_dweight_columns<T>};

}  // namespace
}  // namespace graft
