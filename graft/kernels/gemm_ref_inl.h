// Included by gemm_ref.cc and gemm_fma.cc, which define GRAFT_REF as the namespace. No include guard on purpose.

#include "graft/base/float16.h"
#include "graft/kernels/gemm_ref.h"

namespace graft::GRAFT_REF {
namespace {

constexpr int64_t kBlock = 512;  // the summed dimension is cut here
constexpr int64_t kRows =
    16;  // rows taken together, so that a widened row of W is used more than once; no meaning for the bits

inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline float round_bf16(float x) { return to_float(to_bf16(x)); }
inline double round_bf16(double x) { return x; }  // f64 runs ignore the compute type

template <typename T>
void widen_row(const Operand<T>& w, int64_t row, int64_t column_begin, int64_t n, T* out) noexcept {
  if (w.weight == nullptr) {
    const T* p = w.rows.data() + row * w.rows.stride(0) + column_begin * w.rows.stride(1);
    const int64_t stride = w.rows.stride(1);
    for (int64_t k = 0; k < n; ++k) out[k] = p[k * stride];
    return;
  }
  const int64_t in = w.weight->in_features();
  switch (w.weight->type()) {
    case DType::kF32: {
      const float* p = static_cast<const float*>(w.weight->data()) + (row / 32 * in + column_begin) * 32 + row % 32;
      for (int64_t k = 0; k < n; ++k) out[k] = static_cast<T>(p[k * 32]);
      return;
    }
    case DType::kF64: {
      const double* p = static_cast<const double*>(w.weight->data()) + row * in + column_begin;
      for (int64_t k = 0; k < n; ++k) out[k] = static_cast<T>(p[k]);
      return;
    }
    default: {
      const uint16_t* p =
          static_cast<const uint16_t*>(w.weight->data()) + (row / 64 * ((in + 1) / 2) * 64 + row % 64) * 2;
      const bool is_bf16 = w.weight->type() == DType::kBF16;
      for (int64_t k = column_begin; k < column_begin + n; ++k) {
        const uint16_t bits = p[k / 2 * 128 + k % 2];
        *out++ = static_cast<T>(is_bf16 ? to_float(bf16{bits}) : to_float(f16{bits}));
      }
    }
  }
}

template <typename T>
void nt(Compute compute, View<const T, 2> x, const MatmulOutput<T>& output, int64_t row_begin, int64_t row_end,
        int64_t out_begin, int64_t out_end) noexcept {
  const int64_t in = x.extent(1);
  const bool is_bf16 = compute == Compute::kBF16;
  T w[kBlock], total[kRows], sum[kRows];
  for (int64_t o = out_begin; o < out_end; ++o) {
    for (int64_t row = row_begin; row < row_end; row += kRows) {
      const int64_t rows = least(kRows, row_end - row);
      for (int64_t t = 0; t < rows; ++t) total[t] = 0;
      for (int64_t k0 = 0; k0 < in; k0 += kBlock) {
        const int64_t n = least(kBlock, in - k0);
        widen_row(output.w, o, k0, n, w);
        if (is_bf16) {
          for (int64_t k = 0; k < n; ++k) w[k] = round_bf16(w[k]);
        }
        for (int64_t t = 0; t < rows; ++t) sum[t] = 0;
        for (int64_t k = 0; k < n; ++k) {
          for (int64_t t = 0; t < rows; ++t) {
            const T value = x.row(row + t)[k0 + k];
            sum[t] = fused(is_bf16 ? round_bf16(value) : value, w[k], sum[t]);
          }
        }
        for (int64_t t = 0; t < rows; ++t) total[t] = k0 == 0 ? sum[t] : total[t] + sum[t];
      }
      for (int64_t t = 0; t < rows; ++t) {
        T value = total[t];
        if (output.scale != T(1)) value *= output.scale;
        for (const LoraTerm<T>& term : output.terms) {
          if (row + t < term.row_begin || row + t >= term.row_end) continue;
          for (int64_t r0 = 0; r0 < term.b.extent(1); r0 += kBlock) {
            T update = 0;
            for (int64_t r = r0; r < least(term.b.extent(1), r0 + kBlock); ++r) {
              update = fused(term.h(row + t - term.row_begin, r), term.b(o, r), update);
            }
            value += update;
          }
        }
        if (!output.bias.empty()) value += output.bias[static_cast<size_t>(o)];
        if (output.residual.data() != nullptr) value += output.residual(row + t, o);
        output.y(row + t, o) = value;
      }
    }
  }
}

template <typename T>
void nn(Compute compute, std::span<const MatmulSource<T>> sources, bool accumulate, View<T, 2> dx, int64_t row_begin,
        int64_t row_end, int64_t column_begin, int64_t column_end) noexcept {
  const int64_t columns = column_end - column_begin;
  const bool is_bf16 = compute == Compute::kBF16;
  T w[64], total[kRows][64], sum[kRows][64];
  for (int64_t row = row_begin; row < row_end; row += kRows) {
    const int64_t rows = least(kRows, row_end - row);
    bool add = accumulate;
    for (const MatmulSource<T>& source : sources) {
      const int64_t out = source.dy.extent(1);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t k = 0; k < columns; ++k) total[t][k] = 0;
      }
      for (int64_t o0 = 0; o0 < out; o0 += kBlock) {
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t k = 0; k < columns; ++k) sum[t][k] = 0;
        }
        for (int64_t o = o0; o < least(out, o0 + kBlock); ++o) {
          widen_row(source.w, o, column_begin, columns, w);
          if (is_bf16) {
            for (int64_t k = 0; k < columns; ++k) w[k] = round_bf16(w[k]);
          }
          for (int64_t t = 0; t < rows; ++t) {
            T dy = source.dy(row + t, o);
            if (is_bf16) dy = round_bf16(dy);
            for (int64_t k = 0; k < columns; ++k) sum[t][k] = fused(dy, w[k], sum[t][k]);
          }
        }
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t k = 0; k < columns; ++k) total[t][k] = o0 == 0 ? sum[t][k] : total[t][k] + sum[t][k];
        }
      }
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t k = 0; k < columns; ++k) {
          T& to = dx(row + t, column_begin + k);
          to = add ? to + total[t][k] : total[t][k];
        }
      }
      add = true;
    }
  }
}

template <typename T>
void tn(View<const T, 2> a, View<const T, 2> b, T scale, bool accumulate, View<T, 2> dw, int64_t row_begin,
        int64_t row_end, int64_t column_begin, int64_t column_end) noexcept {
  const int64_t tokens = a.extent(0), columns = column_end - column_begin;
  T sum[64];
  for (int64_t n = row_begin; n < row_end; ++n) {
    T* to = dw.row(n) + column_begin;
    if (!accumulate) {
      for (int64_t k = 0; k < columns; ++k) to[k] = 0;
    }
    for (int64_t t0 = 0; t0 < tokens; t0 += kBlock) {
      for (int64_t k = 0; k < columns; ++k) sum[k] = 0;
      for (int64_t t = t0; t < least(tokens, t0 + kBlock); ++t) {
        const T value = a(t, n);
        const T* from = b.row(t) + column_begin;
        for (int64_t k = 0; k < columns; ++k) sum[k] = fused(value, from[k], sum[k]);
      }
      for (int64_t k = 0; k < columns; ++k) {
        const T value = scale != T(1) ? sum[k] * scale : sum[k];
        to[k] = t0 == 0 && !accumulate ? value : to[k] + value;
      }
    }
  }
}

// Sum of 64 lanes by the tree +32 … +1.
template <typename T>
T tree_sum(T* lanes) {
  for (int64_t half = 32; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

// Sum of squares: 64 lanes (k mod 64) of fused multiply-adds, the tree, blocks of 4,096 whose sums form a new vector.
template <typename T>
T dora_row(const Operand<T>& w, int64_t row, View<const T, 2> a, const T* b_row, int64_t b_stride, T scaling,
           T* merged) noexcept {
  const int64_t in = a.extent(1), rank = a.extent(0);
  T value[64], sum[64], update[64], lanes[64], blocks[64] = {};
  for (int64_t begin = 0; begin < in || begin == 0; begin += 4096) {
    for (T& lane : lanes) lane = 0;
    for (int64_t k0 = begin; k0 < least(in, begin + 4096); k0 += 64) {
      const int64_t n = least(64, in - k0);
      widen_row(w, row, k0, n, value);
      for (int64_t r0 = 0; r0 < rank; r0 += kBlock) {
        for (int64_t k = 0; k < n; ++k) sum[k] = 0;
        for (int64_t r = r0; r < least(rank, r0 + kBlock); ++r) {
          const T b = b_row[r * b_stride];
          for (int64_t k = 0; k < n; ++k) sum[k] = fused(b, a(r, k0 + k), sum[k]);
        }
        for (int64_t k = 0; k < n; ++k) update[k] = r0 == 0 ? sum[k] : update[k] + sum[k];
      }
      for (int64_t k = 0; k < n && rank > 0; ++k) value[k] += scaling * update[k];
      for (int64_t k = 0; k < n; ++k) lanes[k] = fused(value[k], value[k], lanes[k]);
      if (merged != nullptr) {
        for (int64_t k = 0; k < n; ++k) merged[k0 + k] = value[k];
      }
    }
    const T total = tree_sum(lanes);
    if (in <= 4096) return square_root(total);
    blocks[begin / 4096 % 64] += total;
  }
  return square_root(tree_sum(blocks));
}

}  // namespace

const GemmRefTable<float> kGemmFloat = {nt<float>, nn<float>, tn<float>, widen_row<float>, dora_row<float>};
const GemmRefTable<double> kGemmDouble = {nt<double>, nn<double>, tn<double>, widen_row<double>, dora_row<double>};

}  // namespace graft::GRAFT_REF
