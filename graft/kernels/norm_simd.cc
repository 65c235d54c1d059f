#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/norm_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/norm_inl.h"
// clang-format on

#include "graft/kernels/norm_table.h"
#include "graft/kernels/rows.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void rms_norm_rows(View<const float, 2> x, const float* weight, float eps, View<float, 2> y, float* rrms,
                   bool stream) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0), at_once = rows_at_once(n);
  const auto size = static_cast<float>(n);
  HWY_ALIGN float scales[kBatch];
  float* scale = scales;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = rows - first < at_once ? rows - first : at_once;
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      scale[r] = row_sum(n, [in](const auto& io, int64_t j, auto acc) HWY_ATTR {
        const auto v = io.load(in + j);
        return hn::MulAdd(v, v, acc);
      });
    }
    each_lane(count, [=](const auto& io, int64_t r) HWY_ATTR {
      const auto mean = hn::Div(io.load(scale + r), hn::Set(io.d, size));
      io.store(hn::Div(hn::Set(io.d, 1.0f), hn::Sqrt(hn::Add(mean, hn::Set(io.d, eps)))), scale + r);
    });
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      const float by = scale[r];
      if (rrms != nullptr) rrms[first + r] = by;
      fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
        return hn::Mul(hn::Mul(io.load(in + j), hn::Set(io.d, by)), io.load(weight + j));
      });
    }
  }
  fence_stream(stream);
}

// A row at a time: it stays in L1 between its passes, which several, often 4 KB apart and so in one set of the cache, would not.
template <bool kResidual, bool kChain>
HWY_INLINE void rms_norm_backward_all(View<const float, 2> dy, View<const float, 2> x, const float* weight,
                                      const float* rrms, View<const float, 2> residual, View<float, 2> dx,
                                      float* dweight) {
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float *up = dy.row(i), *in = x.row(i), *add = kResidual ? residual.row(i) : nullptr, r = rrms[i];
    float* out = dx.row(i);
    const float dot = row_sum(n, [=](const auto& io, int64_t j, auto acc) HWY_ATTR {
      return hn::MulAdd(hn::Mul(io.load(up + j), io.load(weight + j)), io.load(in + j), acc);
    });
    const float c = (r * r) * (dot / static_cast<float>(n));
    each_lane(n, [=](const auto& io, int64_t j) HWY_ATTR {
      const auto g = io.load(up + j), v = io.load(in + j), by = hn::Set(io.d, r);
      if constexpr (kChain) io.store(hn::MulAdd(g, hn::Mul(v, by), io.load(dweight + j)), dweight + j);
      const auto inner = hn::NegMulAdd(v, hn::Set(io.d, c), hn::Mul(g, io.load(weight + j)));
      if constexpr (kResidual) {
        io.store(hn::MulAdd(by, inner, io.load(add + j)), out + j);
      } else {
        io.store(hn::Mul(by, inner), out + j);
      }
    });
  }
}

void rms_norm_backward_rows(View<const float, 2> dy, View<const float, 2> x, const float* weight, const float* rrms,
                            View<const float, 2> residual, View<float, 2> dx, float* dweight) noexcept {
  const bool add = residual.data() != nullptr;
  if (dweight != nullptr) {
    if (add) return rms_norm_backward_all<true, true>(dy, x, weight, rrms, residual, dx, dweight);
    return rms_norm_backward_all<false, true>(dy, x, weight, rrms, residual, dx, dweight);
  }
  if (add) return rms_norm_backward_all<true, false>(dy, x, weight, rrms, residual, dx, dweight);
  rms_norm_backward_all<false, false>(dy, x, weight, rrms, residual, dx, dweight);
}

// total[j] += the chains of rows in blocks: step(io, i, j, lanes) takes in row i, lanes in registers for a few vectors.
template <class Step>
HWY_INLINE void sum_row_blocks(int64_t rows, int64_t n, float* total, const Step& step) {
  constexpr int64_t kVectors = 4;
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    const int64_t end = begin + kRowSumBlock < rows ? begin + kRowSumBlock : rows;
    const auto one = [&](const auto& io, int64_t j) HWY_ATTR {
      auto lanes = hn::Zero(io.d);
      for (int64_t i = begin; i < end; ++i) lanes = step(io, i, j, lanes);
      io.store(hn::Add(io.load(total + j), lanes), total + j);
    };
    int64_t j = 0;
    const WholeIo<RowTag> whole;
    for (; j + kVectors * kRowLanes <= n; j += kVectors * kRowLanes) {
      auto a = hn::Zero(whole.d), b = a, c = a, d = a;
      for (int64_t i = begin; i < end; ++i) {
        a = step(whole, i, j, a);
        b = step(whole, i, j + kRowLanes, b);
        c = step(whole, i, j + 2 * kRowLanes, c);
        d = step(whole, i, j + 3 * kRowLanes, d);
      }
      const auto put = [&](hn::Vec<RowTag> lanes, int64_t at)
                           HWY_ATTR { whole.store(hn::Add(whole.load(total + at), lanes), total + at); };
      put(a, j);
      put(b, j + kRowLanes);
      put(c, j + 2 * kRowLanes);
      put(d, j + 3 * kRowLanes);
    }
    for (; j + kRowLanes <= n; j += kRowLanes) one(whole, j);
    each_rest(j, n - j, one);
  }
}

void rms_norm_dweight_columns(View<const float, 2> dy, View<const float, 2> x, const float* rrms,
                              float* dweight) noexcept {
  sum_row_blocks(x.extent(0), x.extent(1), dweight, [=](const auto& io, int64_t i, int64_t j, auto lanes) HWY_ATTR {
    const auto scaled = hn::Mul(io.load(x.row(i) + j), hn::Set(io.d, rrms[i]));
    return hn::MulAdd(io.load(dy.row(i) + j), scaled, lanes);
  });
}

void layer_norm_rows(View<const float, 2> x, const Affine<float>& affine, int64_t first_row, float eps,
                     View<float, 2> y, float* mean, float* rstd, bool stream) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0), at_once = rows_at_once(n);
  const int64_t channels = n / affine.length;
  RowMoments m;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = rows - first < at_once ? rows - first : at_once;
    m.take(x, first, count, eps);
    for (int64_t r = 0; r < count; ++r) {
      if (mean != nullptr) mean[first + r] = m.centre[r] + m.rest[r];
      if (rstd != nullptr) rstd[first + r] = m.rstd[r];
      const float *in = x.row(first + r), centre = m.centre[r], scale = m.rstd[r], shift = m.shift[r];
      const auto normed = [=](const auto& io, int64_t j) HWY_ATTR {
        const auto apart = hn::Sub(io.load(in + j), hn::Set(io.d, centre));
        return hn::MulAdd(apart, hn::Set(io.d, scale), hn::Set(io.d, shift));
      };
      const int64_t offset = (first_row + first + r) % affine.groups * channels;
      const float *gamma = affine.gamma + offset, *beta = affine.beta + offset;
      if (affine.length == 1) {
        fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
          return hn::MulAdd(normed(io, j), io.load(gamma + j), io.load(beta + j));
        });
        continue;
      }
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t begin = c * affine.length;
        fill_row(y.row(first + r) + begin, affine.length, stream, [=](const auto& io, int64_t j) HWY_ATTR {
          return hn::MulAdd(normed(io, begin + j), hn::Set(io.d, gamma[c]), hn::Set(io.d, beta[c]));
        });
      }
    }
  }
  fence_stream(stream);
}

void layer_norm_dropout_rows(View<const float, 2> x, const Affine<float>& affine, float eps,
                             View<const uint8_t, 2> mask, float scale_kept, View<const float, 2> residual,
                             View<float, 2> y, bool stream) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0), at_once = rows_at_once(n);
  const float *gamma = affine.gamma, *beta = affine.beta;
  RowMoments m;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = rows - first < at_once ? rows - first : at_once;
    m.take(x, first, count, eps);
    for (int64_t r = 0; r < count; ++r) {
      const float *in = x.row(first + r), *add = residual.row(first + r);
      const float centre = m.centre[r], scale = m.rstd[r], shift = m.shift[r];
      const uint8_t* keep = mask.row(first + r);
      fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
        const auto apart = hn::Sub(io.load(in + j), hn::Set(io.d, centre));
        const auto normed = hn::MulAdd(apart, hn::Set(io.d, scale), hn::Set(io.d, shift));
        const auto words = io.load_bytes(keep + j);
        const auto kept = hn::RebindMask(io.d, hn::Ne(words, hn::Xor(words, words)));
        const auto by = hn::IfThenElseZero(kept, hn::Set(io.d, scale_kept));
        return hn::MulAdd(hn::MulAdd(normed, io.load(gamma + j), io.load(beta + j)), by, io.load(add + j));
      });
    }
  }
  fence_stream(stream);
}

template <bool kChain>
HWY_INLINE void layer_norm_backward_all(View<const float, 2> dy, View<const float, 2> x, const float* gamma,
                                        const float* mean, const float* rstd, View<float, 2> dx, float* dgamma,
                                        float* dbeta) {
  const int64_t n = x.extent(1);
  const auto size = static_cast<float>(n);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float *up = dy.row(i), *in = x.row(i), centre = mean[i], r = rstd[i];
    float *out = dx.row(i), a, b;
    two_row_sums(
        n,
        [=](const auto& io, int64_t j, auto& to_a, auto& to_b) HWY_ATTR {
          const auto g = io.load(up + j), w = io.load(gamma + j);
          const auto hat = hn::Mul(hn::Sub(io.load(in + j), hn::Set(io.d, centre)), hn::Set(io.d, r));
          to_a = hn::MulAdd(g, w, to_a);
          to_b = hn::MulAdd(hn::Mul(g, w), hat, to_b);
        },
        &a, &b);
    a /= size;
    b /= size;
    each_lane(n, [=](const auto& io, int64_t j) HWY_ATTR {
      const auto g = io.load(up + j), by = hn::Set(io.d, r);
      const auto hat = hn::Mul(hn::Sub(io.load(in + j), hn::Set(io.d, centre)), by);
      if constexpr (kChain) {
        io.store(hn::MulAdd(g, hat, io.load(dgamma + j)), dgamma + j);
        io.store(hn::Add(io.load(dbeta + j), g), dbeta + j);
      }
      const auto inner = hn::NegMulAdd(hat, hn::Set(io.d, b), hn::MulSub(g, io.load(gamma + j), hn::Set(io.d, a)));
      io.store(hn::Mul(by, inner), out + j);
    });
  }
}

void layer_norm_backward_rows(View<const float, 2> dy, View<const float, 2> x, const float* gamma, const float* mean,
                              const float* rstd, View<float, 2> dx, float* dgamma, float* dbeta) noexcept {
  if (dgamma != nullptr) return layer_norm_backward_all<true>(dy, x, gamma, mean, rstd, dx, dgamma, dbeta);
  layer_norm_backward_all<false>(dy, x, gamma, mean, rstd, dx, dgamma, dbeta);
}

void layer_norm_dweight_columns(View<const float, 2> dy, View<const float, 2> x, const float* mean, const float* rstd,
                                float* dgamma, float* dbeta) noexcept {
  const int64_t rows = x.extent(0), n = x.extent(1);
  sum_row_blocks(rows, n, dgamma, [=](const auto& io, int64_t i, int64_t j, auto lanes) HWY_ATTR {
    const auto hat = hn::Mul(hn::Sub(io.load(x.row(i) + j), hn::Set(io.d, mean[i])), hn::Set(io.d, rstd[i]));
    return hn::MulAdd(io.load(dy.row(i) + j), hat, lanes);
  });
  sum_row_blocks(rows, n, dbeta, [=](const auto& io, int64_t i, int64_t j, auto lanes) HWY_ATTR {
    return hn::Add(lanes, io.load(dy.row(i) + j));
  });
}

}  // namespace
constexpr NormTable<float> kNormTable = {
    rms_norm_rows,           rms_norm_backward_rows,   rms_norm_dweight_columns,  layer_norm_rows,
    layer_norm_dropout_rows, layer_norm_backward_rows, layer_norm_dweight_columns};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const NormTable<float>* norm_simd() noexcept { return GRAFT_SIMD_TABLE(kNormTable); }
}  // namespace graft
#endif
