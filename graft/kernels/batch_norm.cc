#include <algorithm>
#include <cassert>
#include <cmath>

#include "graft/kernels/batch_norm_table.h"
#include "graft/kernels/norm.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const BatchNormTable& table() noexcept {
  if (const BatchNormTable* simd = batch_norm_simd()) return *simd;
  return pick_reference(batch_norm_ref(), batch_norm_fma());
}

// Moments that join by Chan's rule, in f64.
struct Total {
  double mean = 0, m2 = 0, count = 0;
  void add(double other_mean, double other_m2, double other_count) noexcept {
    const double delta = other_mean - mean, both = count + other_count;
    mean += delta * (other_count / both);
    m2 += other_m2 + delta * delta * (count * other_count / both);
    count = both;
  }
};

// c, a and b of y = fma(x - c, a, b).
struct Line {
  float c, a, b;
};

// What a channel's moments make of it; updates the running ones.
Line line_of(const BatchNormArgs& args, size_t channel, const Total& batch) noexcept {
  double mean = static_cast<double>(args.running_mean[channel]), var = static_cast<double>(args.running_var[channel]);
  if (args.training) {
    const double keep = 1 - args.momentum;
    args.running_mean[channel] = static_cast<float>(keep * mean + args.momentum * batch.mean);
    args.running_var[channel] = static_cast<float>(keep * var + args.momentum * (batch.m2 / (batch.count - 1)));
    mean = batch.mean;
    var = batch.m2 / batch.count;
  }
  const double scale = static_cast<double>(args.gamma[channel]) / std::sqrt(var + args.eps);
  const auto c = static_cast<float>(mean);
  return {c, static_cast<float>(scale),
          static_cast<float>(static_cast<double>(args.beta[channel]) - (mean - static_cast<double>(c)) * scale)};
}

// A worker's arrays of a stripe.
struct Stripe {
  double *mean, *m2;
  float *block_mean, *block_m2, *c, *a, *b;
  explicit Stripe(std::byte* memory) {
    mean = reinterpret_cast<double*>(memory);
    m2 = mean + kStripeColumns;
    block_mean = reinterpret_cast<float*>(m2 + kStripeColumns);
    block_m2 = block_mean + kStripeColumns;
    c = block_m2 + kStripeColumns;
    a = c + kStripeColumns;
    b = a + kStripeColumns;
  }
};

// Channels [first, last), every place of a channel a column of its own.
void norm_columns(const BatchNormTable& t, const Stripe& s, View<const float, 3> x, const BatchNormArgs& args,
                  View<float, 3> y, int64_t first, int64_t last, bool stream) noexcept {
  const int64_t rows = x.extent(0), length = x.extent(2), columns = (last - first) * length;
  const View<const float, 2> in(x.data() + first * length, {rows, columns}, {x.stride(0), 1});
  if (args.training) {
    for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
      const int64_t end = std::min(rows, begin + kRowSumBlock);
      t.column_moments(rows_of(in, begin, end), s.block_mean, s.block_m2);
      const auto done = static_cast<double>(begin), more = static_cast<double>(end - begin);
      const double mean_part = more / (done + more), m2_part = done * more / (done + more);
      for (int64_t j = 0; j < columns; ++j) {
        const double before = begin == 0 ? 0.0 : s.mean[j], m2 = begin == 0 ? 0.0 : s.m2[j];
        const double delta = static_cast<double>(s.block_mean[j]) - before;
        s.mean[j] = before + delta * mean_part;
        s.m2[j] = m2 + (static_cast<double>(s.block_m2[j]) + delta * delta * m2_part);
      }
    }
  }
  for (int64_t channel = first; channel < last; ++channel) {
    const int64_t at = (channel - first) * length;
    Total total;
    for (int64_t j = at; args.training && j < at + length; ++j) {
      total.add(s.mean[j], s.m2[j], static_cast<double>(rows));
    }
    const Line line = line_of(args, static_cast<size_t>(channel), total);
    std::fill_n(s.c + at, length, line.c);
    std::fill_n(s.a + at, length, line.a);
    std::fill_n(s.b + at, length, line.b);
  }
  t.scale_columns(in, s.c, s.a, s.b, View<float, 2>(y.data() + first * length, {rows, columns}, {y.stride(0), 1}),
                  stream);
}

// One channel whose runs are long.
void norm_runs(const BatchNormTable& t, View<const float, 3> x, const BatchNormArgs& args, View<float, 3> y,
               int64_t channel, bool stream) noexcept {
  const int64_t rows = x.extent(0), length = x.extent(2);
  const auto offset = [&](int64_t i) { return i * x.stride(0) + channel * length; };
  Total total;
  for (int64_t i = 0; args.training && i < rows; ++i) {
    for (int64_t begin = 0; begin < length; begin += kSumBlock) {
      const int64_t size = std::min(kSumBlock, length - begin);
      const RunMoments m = t.run_moments(x.data() + offset(i) + begin, size);
      const auto count = static_cast<double>(size), rest = static_cast<double>(m.rest);
      total.add(static_cast<double>(m.centre) + rest / count, static_cast<double>(m.squares) - rest * rest / count,
                count);
    }
  }
  const Line line = line_of(args, static_cast<size_t>(channel), total);
  for (int64_t i = 0; i < rows; ++i) {
    t.scale_run(x.data() + offset(i), line.c, line.a, line.b, y.data() + offset(i), length, stream);
  }
}

}  // namespace

ScratchNeed batch_norm_scratch(int64_t /*channels*/, int64_t length) noexcept {
  if (length >= kRunLength) return {};
  return {.per_worker = static_cast<size_t>(kStripeColumns) * (2 * sizeof(double) + 5 * sizeof(float))};
}

void batch_norm(Context& context, View<const float, 3> x, const BatchNormArgs& args, View<float, 3> y) noexcept {
  assert(x.contiguous() && y.contiguous() && x.extents() == y.extents());
  const int64_t rows = x.extent(0), channels = x.extent(1), length = x.extent(2);
  if (x.size() == 0) return;
  const BatchNormTable& t = table();
  const bool stream = leaves_cache(y.size());
  if (length >= kRunLength) {
    context.pool().parallel(channels, [&](int64_t channel, int) { norm_runs(t, x, args, y, channel, stream); });
    return;
  }
  // About 2 MB at once, so that the second pass finds x in the cache, and work for every thread.
  const int64_t fit = std::clamp<int64_t>((int64_t{1} << 19) / rows, 64, kStripeColumns) / length;
  const int64_t share = (channels + context.num_threads() - 1) / context.num_threads();
  const int64_t step = std::max<int64_t>(1, std::min(fit, (share + 15) / 16 * 16));
  context.pool().parallel((channels + step - 1) / step, [&](int64_t task, int worker) {
    norm_columns(t, Stripe(context.worker<std::byte>(worker)), x, args, y, task * step,
                 std::min(channels, (task + 1) * step), stream);
  });
}

}  // namespace graft
