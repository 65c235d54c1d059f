#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/softmax_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/softmax_inl.h"
// clang-format on

#include "graft/kernels/softmax_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

constexpr int64_t kBatch = 16;  // rows at once: one row's tree does not wait for another's

// A few rows whose maxima and sums are known, and where they fit, their exponentials.
struct Batch {
  HWY_ALIGN float maximum[kBatch];
  HWY_ALIGN float sum[kBatch];
  HWY_ALIGN float exponentials[kSumBlock + 16];
  int64_t stride, capacity;

  explicit Batch(int64_t n) : stride((n + 15) / 16 * 16) {
    const int64_t fit = n > 0 && n <= kSumBlock ? kSumBlock / stride : kBatch;
    capacity = fit < kBatch ? fit : kBatch;
  }
  // Fills maximum and sum of rows [first, first + count).
  template <bool kKeep>
  HWY_INLINE void take(View<const float, 2> x, int64_t first, int64_t count) {
    const int64_t n = x.extent(1);
    if (n > kSumBlock) {
      for (int64_t r = 0; r < count; ++r) {
        const SoftmaxSums<float> s = softmax_sums_of_row(x.row(first + r), n);
        maximum[r] = s.maximum;
        sum[r] = s.sum;
      }
      return;
    }
    for (int64_t r = 0; r < count; ++r) maximum[r] = block_maximum(x.row(first + r), n);
    for (int64_t r = 0; r < count; ++r) {
      [[maybe_unused]] float* kept = exponentials + r * stride;
      sum[r] = block_exponentials(x.row(first + r), shift_of(maximum[r]), n,
                                  [&](const auto& io, auto e, int64_t j) HWY_ATTR {
                                    if constexpr (kKeep) io.store(e, kept + j);
                                  });
    }
  }
  // ln of the sums, in their place.
  HWY_INLINE void logarithms(int64_t count) {
    each_lane(count,
              [this](const auto& io, int64_t r) HWY_ATTR { io.store(log_f32(io.d, io.load(sum + r)), sum + r); });
  }
};

// What a row's maximum is to its user: NaN with a NaN in the row, and +0 for a zero of either sign.
HWY_INLINE float true_maximum(const float* x, int64_t n, float maximum, float sum) {
  if (sum == sum) return maximum + 0.0f;
  float top = kNoMaximum;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const float block = max_row_block(x + begin, n - begin < kSumBlock ? n - begin : kSumBlock);
    top = block > top || block != block ? block : top;
    if (top != top) break;
  }
  return top + 0.0f;
}

void softmax_rows(View<const float, 2> x, View<float, 2> y, float* row_max, float* row_sum, bool stream) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0);
  Batch batch(n);
  for (int64_t first = 0; first < rows; first += batch.capacity) {
    const int64_t count = rows - first < batch.capacity ? rows - first : batch.capacity;
    batch.take<true>(x, first, count);
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      const float maximum = batch.maximum[r], sum = batch.sum[r], inverse = 1 / sum;
      if (row_max != nullptr) row_max[first + r] = true_maximum(in, n, maximum, sum);  // before y, which may be x
      if (row_sum != nullptr) row_sum[first + r] = sum + (maximum - maximum);
      if (n <= kSumBlock) {
        const float* kept = batch.exponentials + r * batch.stride;
        fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
          return hn::Mul(io.load(kept + j), hn::Set(io.d, inverse));
        });
      } else {
        fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
          const auto e = exp_f32(io.d, hn::Sub(io.load(in + j), hn::Set(io.d, maximum)));
          return hn::Mul(e, hn::Set(io.d, inverse));
        });
      }
    }
  }
  fence_stream(stream);
}

void log_softmax_rows(View<const float, 2> x, View<float, 2> y, bool stream) noexcept {
  const int64_t n = x.extent(1), rows = x.extent(0);
  Batch batch(n);
  for (int64_t first = 0; first < rows; first += batch.capacity) {
    const int64_t count = rows - first < batch.capacity ? rows - first : batch.capacity;
    batch.take<false>(x, first, count);
    batch.logarithms(count);
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      const float maximum = batch.maximum[r] + 0.0f, log_sum = batch.sum[r];
      fill_row(y.row(first + r), n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
        return hn::Sub(hn::Sub(io.load(in + j), hn::Set(io.d, maximum)), hn::Set(io.d, log_sum));
      });
    }
  }
  fence_stream(stream);
}

// batch.sum holds logarithms.
HWY_INLINE void store_losses(const Batch& batch, View<const float, 2> logits, const CrossEntropyRows& rows,
                             int64_t first, int64_t count) {
  for (int64_t r = 0; r < count; ++r) {
    const int32_t t = rows.targets[first + r];
    if (t == rows.ignore_index) {
      rows.loss[first + r] = 0;
      continue;
    }
    const float loss = (batch.maximum[r] - logits.row(first + r)[t]) + batch.sum[r];
    rows.loss[first + r] = rows.weight != nullptr ? rows.weight[t] * loss : loss;
  }
}

void cross_entropy_rows(View<const float, 2> logits, const CrossEntropyRows& rows) noexcept {
  Batch batch(logits.extent(1));
  const int64_t count_all = logits.extent(0);
  for (int64_t first = 0; first < count_all; first += batch.capacity) {
    const int64_t count = count_all - first < batch.capacity ? count_all - first : batch.capacity;
    batch.take<false>(logits, first, count);
    batch.logarithms(count);
    store_losses(batch, logits, rows, first, count);
  }
}

void cross_entropy_gradient_rows(View<const float, 2> logits, const CrossEntropyRows& rows, float scale,
                                 View<float, 2> grad, bool stream) noexcept {
  const int64_t n = logits.extent(1), count_all = logits.extent(0);
  Batch batch(n);
  for (int64_t first = 0; first < count_all; first += batch.capacity) {
    const int64_t count = count_all - first < batch.capacity ? count_all - first : batch.capacity;
    batch.take<true>(logits, first, count);
    float inverse[kBatch];
    for (int64_t r = 0; r < count; ++r) inverse[r] = 1 / batch.sum[r];
    batch.logarithms(count);
    store_losses(batch, logits, rows, first, count);
    for (int64_t r = 0; r < count; ++r) {
      const int32_t t = rows.targets[first + r];
      float* out = grad.row(first + r);
      if (t == rows.ignore_index) {
        fill_row(out, n, stream, [](const auto& io, int64_t) HWY_ATTR { return hn::Zero(io.d); });
        continue;
      }
      const float over = inverse[r];
      if (n <= kSumBlock) {
        float* kept = batch.exponentials + r * batch.stride;
        const float at_target = scale * (kept[t] * over - 1);
        // Through the kept row where stores go past the cache: a line may not be touched twice.
        float* target = stream ? kept : out;
        fill_row(target, n, false, [=](const auto& io, int64_t j) HWY_ATTR {
          return hn::Mul(hn::Set(io.d, scale), hn::Mul(io.load(kept + j), hn::Set(io.d, over)));
        });
        target[t] = at_target;
        if (stream) fill_row(out, n, true, [=](const auto& io, int64_t j) HWY_ATTR { return io.load(kept + j); });
      } else {
        const float* in = logits.row(first + r);
        const float maximum = batch.maximum[r];
        const LaneTag one;
        const float e = hn::GetLane(exp_f32(one, hn::Set(one, in[t] - maximum)));
        fill_row(out, n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
          const auto p = hn::Mul(exp_f32(io.d, hn::Sub(io.load(in + j), hn::Set(io.d, maximum))), hn::Set(io.d, over));
          return hn::Mul(hn::Set(io.d, scale), p);
        });
        fence_stream(stream);
        out[t] = scale * (e * over - 1);
      }
    }
  }
  fence_stream(stream);
}

}  // namespace

constexpr SoftmaxTable kSoftmaxTable = {softmax_rows, log_softmax_rows, cross_entropy_rows,
                                        cross_entropy_gradient_rows};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const SoftmaxTable* softmax_simd() noexcept { return GRAFT_SIMD_TABLE(kSoftmaxTable); }
}  // namespace graft
#endif
