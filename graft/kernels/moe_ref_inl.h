#pragma once

#include <algorithm>
#include <cmath>

#include "graft/base/float16.h"
#include "graft/kernels/gemm_ref.h"
#include "graft/kernels/moe_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

constexpr int64_t kSummedBlock = 512;  // the summed dimension is cut here (gemm.h)

template <typename T>
void scatter(const T* c, int64_t c_stride, int64_t rows, const int32_t* assignments, int64_t top_k, const T* weights,
             T* y, int64_t y_stride, int64_t n) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    const T weight = weights != nullptr ? weights[assignments[i]] : T{1};
    T* to = y + assignments[i] / top_k * y_stride;
    for (int64_t j = 0; j < n; ++j) to[j] = std::fma(weight, c[i * c_stride + j], to[j]);
  }
}

template <typename T>
T dot(const T* a, const T* b, int64_t n) noexcept {
  return sum_vector<T>(n, [&](T lane, int64_t j) { return std::fma(a[j], b[j], lane); });
}

template <typename T>
void scale(const T* x, T s, const T* residual, T* y, int64_t n) noexcept {
  for (int64_t j = 0; j < n; ++j) y[j] = residual != nullptr ? std::fma(x[j], s, residual[j]) : x[j] * s;
}

// A short list kept in order, so that a row is read once.
template <typename T>
void choose(const T* p, int64_t n, int64_t top_k, bool renormalize, int32_t* experts, T* weights) noexcept {
  int64_t held = 0;
  for (int64_t e = 0; e < n; ++e) {
    int64_t at = held;
    while (at > 0 && p[e] > weights[at - 1]) --at;
    if (at == top_k) continue;
    for (int64_t i = std::min(held, top_k - 1); i > at; --i) weights[i] = weights[i - 1], experts[i] = experts[i - 1];
    weights[at] = p[e];
    experts[at] = static_cast<int32_t>(e);
    held = std::min(held + 1, top_k);
  }
  if (!renormalize) return;
  T sum = weights[0];  // at least 1 / n
  for (int64_t k = 1; k < top_k; ++k) sum += weights[k];
  for (int64_t k = 0; k < top_k; ++k) weights[k] /= sum;
}

template <typename T>
void route_backward(const T* p, int64_t n, int64_t top_k, bool renormalize, const int32_t* experts, const T* weights,
                    const T* dweights, T z_scale, T* dz) noexcept {
  if (dweights != nullptr) {
    T mean = 0, sum = 0;
    for (int64_t k = 0; k < top_k && renormalize; ++k) {
      mean = std::fma(weights[k], dweights[k], mean);
      sum += p[experts[k]];
    }
    for (int64_t k = 0; k < top_k; ++k) {
      dz[experts[k]] += renormalize ? (dweights[k] - mean) / sum : dweights[k];
    }
  }
  T inner = 0;
  for (int64_t e = 0; e < n; ++e) inner = std::fma(p[e], dz[e], inner);
  for (int64_t e = 0; e < n; ++e) dz[e] = p[e] * ((dz[e] - inner) + z_scale);
}

inline float to_bf16_value(float x) noexcept { return to_float(to_bf16(x)); }
inline double to_bf16_value(double x) noexcept { return x; }  // f64 runs ignore the compute type

// Sums of `count` <= kRowsAtOnce sorted rows from `row` by one source for columns [begin, end) of its outputs, onto c or written.
constexpr int64_t kRowsAtOnce = 16, kColumns = 64;
template <typename T>
void source_sums(const ExpertRows& rows, const ExpertSource<T>& source, const Operand<T>& w, int64_t row, int64_t count,
                 int64_t begin, int64_t end, T (*c)[kColumns], bool add) noexcept {
  const GemmRefTable<T>& gemm = gemm_ref<T>();
  const int64_t summed = source.transposed ? w.out_features() : w.in_features();
  const bool rounded = source.compute == Compute::kBF16;
  const T* x[kRowsAtOnce];
  for (int64_t i = 0; i < count; ++i) x[i] = source.x.row(source.by_token ? rows.token(row + i) : row + i);
  T sum[kRowsAtOnce][kColumns], values[kSummedBlock];
  for (int64_t i = 0; i < count && !add; ++i) std::fill_n(c[i], end - begin, T{0});
  for (int64_t k0 = 0; k0 < summed; k0 += kSummedBlock) {
    const int64_t n = std::min(kSummedBlock, summed - k0);
    for (int64_t i = 0; i < count; ++i) std::fill_n(sum[i], end - begin, T{0});
    if (source.transposed) {
      for (int64_t k = k0; k < k0 + n; ++k) {
        gemm.widen_row(w, k, begin, end - begin, values);
        for (int64_t i = 0; i < count; ++i) {
          const T value = rounded ? to_bf16_value(x[i][k]) : x[i][k];
          for (int64_t j = 0; j < end - begin; ++j) {
            sum[i][j] = std::fma(value, rounded ? to_bf16_value(values[j]) : values[j], sum[i][j]);
          }
        }
      }
    } else {
      for (int64_t j = begin; j < end; ++j) {
        gemm.widen_row(w, j, k0, n, values);
        for (int64_t i = 0; i < count; ++i) {
          T chain = 0;
          for (int64_t k = 0; k < n; ++k) {
            const T value = x[i][k0 + k];
            chain = rounded ? std::fma(to_bf16_value(value), to_bf16_value(values[k]), chain)
                            : std::fma(value, values[k], chain);
          }
          sum[i][j - begin] = chain;
        }
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < end - begin; ++j) c[i][j] = k0 == 0 && !add ? sum[i][j] : c[i][j] + sum[i][j];
    }
  }
}

template <typename T>
void product(const ExpertRows& rows, const ExpertProduct<T>& p, int64_t begin, int64_t end) noexcept {
  T c[kRowsAtOnce][kColumns];
  for (int64_t e = 0; e < rows.experts(); ++e) {
    const auto expert = static_cast<size_t>(e);
    const int64_t last = rows.offsets[expert + 1];
    for (int64_t row = rows.offsets[expert]; row < last; row += kRowsAtOnce) {
      const int64_t count = std::min(kRowsAtOnce, last - row);
      bool held = false, again = false;  // c holds sums; y does
      for (size_t s = 0; s < p.sources.size(); ++s) {
        const ExpertSource<T>& source = p.sources[s];
        const Operand<T>& w = source.w[expert];
        const int64_t columns =
            std::min(end, source.transposed ? w.in_features() : w.out_features());  // other experts may have more
        held = held && source.continues;
        if (columns > begin) {
          source_sums(rows, source, w, row, count, begin, columns, c, held);
          held = true;
        }
        if (!held || (s + 1 < p.sources.size() && p.sources[s + 1].continues)) continue;
        const int64_t written = std::min(end, p.sources[0].transposed ? p.sources[0].w[expert].in_features()
                                                                      : p.sources[0].w[expert].out_features()) -
                                begin;
        if (written <= 0) break;
        if (p.by_token) {
          scatter(&c[0][0], kColumns, count, rows.rows.data() + row, rows.top_k,
                  p.weights.empty() ? nullptr : p.weights.data(), p.y.data() + begin, p.y.stride(0), written);
        } else {
          for (int64_t i = 0; i < count; ++i) {
            T* to = p.y.row(row + i) + begin;
            for (int64_t j = 0; j < written; ++j) {
              T value = c[i][j];
              if (!p.scales.empty() && p.scales[expert] != T{1}) value *= p.scales[expert];
              to[j] = again ? to[j] + value : value;
            }
          }
        }
        again = true;
      }
    }
  }
}

template <typename T>
void gradient(const ExpertRows& rows, const ExpertGradient<T>& g, int64_t begin, int64_t end) noexcept {
  T sum[kColumns];
  for (int64_t e = 0; e < rows.experts(); ++e) {
    const auto expert = static_cast<size_t>(e);
    const View<T, 2>& dw = g.dw[expert];
    if (dw.data() == nullptr) continue;
    const int64_t columns = std::min(end, dw.extent(1)) - begin;
    const int64_t first = rows.offsets[expert], last = rows.offsets[expert + 1];
    for (int64_t n = 0; n < dw.extent(0) && columns > 0; ++n) {
      T* to = dw.row(n) + begin;
      for (int64_t t0 = first; t0 < last; t0 += kSummedBlock) {
        std::fill_n(sum, columns, T{0});
        for (int64_t t = t0; t < std::min(last, t0 + kSummedBlock); ++t) {
          const T value = g.a.row(g.a_by_token ? rows.token(t) : t)[n];
          const T* from = g.b.row(g.b_by_token ? rows.token(t) : t) + begin;
          for (int64_t j = 0; j < columns; ++j) sum[j] = std::fma(value, from[j], sum[j]);
        }
        for (int64_t j = 0; j < columns; ++j) to[j] += sum[j];
      }
    }
  }
}

}  // namespace
}  // namespace graft
