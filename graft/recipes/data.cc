#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/kernels/compact.h"
#include "graft/kernels/correlation.h"
#include "graft/kernels/layout.h"
#include "graft/kernels/map.h"
#include "graft/kernels/prng.h"
#include "graft/kernels/select.h"
#include "graft/recipes/recipes.h"

namespace graft {

EtlResult etl(Context& context, std::span<const float> x, const EtlOptions& options) {
  GRAFT_CHECK(options.log || options.low <= options.high, "etl: clamp from {} to {}", options.low, options.high);
  std::vector<float> kept(x.size());
  context.reserve(compact_scratch(static_cast<int64_t>(x.size())));
  kept.resize(compact_if(context, x, static_cast<double>(options.threshold), kept));
  EtlResult result;
  result.dropped = static_cast<int64_t>(x.size() - kept.size());
  if (options.log) {
    map_log(context, kept, kept);
  } else {
    map_clamp(context, kept, options.low, options.high, kept);
  }
  context.reserve(reduce_scratch(static_cast<int64_t>(kept.size())));
  result.mean = reduce_mean(context, kept);
  const std::vector<float> mean(kept.size(), result.mean);
  map_div(context, kept, mean, kept);
  result.values = std::move(kept);
  return result;
}

Statistics describe_stats(Context& context, std::span<const float> x, int64_t bins) {
  GRAFT_CHECK(!x.empty(), "describe_stats: no values");
  GRAFT_CHECK(bins > 0 && bins <= 1 << 20, "describe_stats: {} bins, expected 1 to {}", bins, 1 << 20);
  context.reserve(reduce_moments_scratch(static_cast<int64_t>(x.size())));
  context.reserve(histogram_scratch(bins));
  const Moments m = reduce_moments(context, x);
  Statistics s;
  s.mean = m.mean, s.variance = m.variance, s.min = m.min, s.max = m.max;
  if (s.min.value < s.max.value && std::isfinite(s.min.value) && std::isfinite(s.max.value)) {
    s.histogram.resize(static_cast<size_t>(bins));
    reduce_histogram(context, x, s.min.value, s.max.value, s.histogram);
  }
  return s;
}

PcaInput pca_prep(Context& context, View<const float, 2> x) {
  GRAFT_CHECK(x.contiguous(), "pca_prep: rows must be contiguous");
  const int64_t rows = x.extent(0), columns = x.extent(1);
  std::vector<float> turned(static_cast<size_t>(rows * columns));
  transpose_2d(context, x, View<float, 2>(turned.data(), columns, rows));
  PcaInput result{std::vector<float>(static_cast<size_t>(columns)),
                  std::vector<float>(static_cast<size_t>(columns * columns))};
  context.reserve(reduce_scratch(rows));
  for (int64_t c = 0; c < columns; ++c) {
    const std::span<const float> column(turned.data() + c * rows, static_cast<size_t>(rows));
    result.mean[static_cast<size_t>(c)] = reduce_mean(context, column);
  }
  context.reserve(covariance_scratch(rows, columns));
  reduce_covariance_matrix(context, x, 1, View<float, 2>(result.covariance.data(), columns, columns));
  return result;
}

DataAnalysis data_analysis(Context& context, View<const float, 2> x, int64_t bins) {
  GRAFT_CHECK(x.contiguous(), "data_analysis: rows must be contiguous");
  GRAFT_CHECK(bins > 0 && bins <= 1 << 20, "data_analysis: {} bins, expected 1 to {}", bins, 1 << 20);
  const int64_t rows = x.extent(0), columns = x.extent(1);
  GRAFT_CHECK(columns <= 1 << 15, "data_analysis: {} columns, expected at most {}", columns, 1 << 15);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr std::array<float, 5> kPercentiles = {25, 50, 75, 90, 99};
  context.reserve(reduce_moments_scratch(rows));
  context.reserve(histogram_scratch(bins));
  context.reserve(compact_scratch(rows));
  context.reserve(select_scratch(rows));
  context.reserve(covariance_scratch(rows, columns));
  std::vector<float> turned(static_cast<size_t>(x.size())), kept(static_cast<size_t>(rows));
  transpose_2d(context, x, View<float, 2>(turned.data(), columns, rows));
  const auto column_of = [&](int64_t c) {
    return std::span<const float>(turned).subspan(static_cast<size_t>(c * rows), static_cast<size_t>(rows));
  };
  std::vector<uint8_t> mask(kept.size()), whole(kept.size(), 1);
  DataAnalysis result;
  for (int64_t c = 0; c < columns; ++c) {
    map_compare(context, column_of(c), column_of(c), Comparison::kEq, mask);
    for (size_t i = 0; i < mask.size(); ++i) whole[i] &= mask[i];
    const std::span<const float> values = std::span(kept).first(compact_mask(context, column_of(c), mask, kept));
    ColumnAnalysis& a = result.columns.emplace_back();
    a.count = static_cast<int64_t>(values.size());
    const Moments m = values.empty() ? Moments{kNan, kNan, {kNan, 0}, {kNan, 0}} : reduce_moments(context, values);
    a.mean = m.mean, a.variance = m.variance, a.min = m.min.value, a.max = m.max.value;
    if (a.min < a.max && std::isfinite(a.min) && std::isfinite(a.max)) {
      a.histogram.resize(static_cast<size_t>(bins));
      reduce_histogram(context, values, a.min, a.max, a.histogram);
    }
    percentile_select(context, values, kPercentiles, a.percentiles);
  }
  result.complete = std::count(whole.begin(), whole.end(), uint8_t{1});
  std::vector<float> together(static_cast<size_t>(columns * result.complete)), by_row(together.size());
  for (int64_t c = 0; c < columns; ++c) {
    compact_mask(context, column_of(c), whole, kept);
    std::copy_n(kept.begin(), result.complete, together.begin() + c * result.complete);
  }
  transpose_2d(context, View<const float, 2>(together.data(), columns, result.complete),
               View<float, 2>(by_row.data(), result.complete, columns));
  result.correlation.resize(static_cast<size_t>(columns * columns));
  reduce_pearson_pairwise(context, View<const float, 2>(by_row.data(), result.complete, columns),
                          View<float, 2>(result.correlation.data(), columns, columns));
  return result;
}

std::vector<float> random_init(Context& context, InitKind kind, double a, double b, uint64_t seed, uint64_t stream,
                               int64_t size) {
  GRAFT_CHECK(size >= 0, "random_init: {} values", size);
  std::vector<float> y(static_cast<size_t>(size));
  if (kind == InitKind::kBernoulli) {
    std::vector<uint8_t> mask(y.size());
    prng_dropout_mask(context, seed, stream, 0, a, mask);
    std::copy(mask.begin(), mask.end(), y.begin());
    return y;
  }
  const bool uniform = kind == InitKind::kUniform;
  if (uniform) {
    prng_uniform_f32(context, seed, stream, 0, y);
  } else {
    prng_normal_f32(context, seed, stream, 0, y);
  }
  const std::vector<float> scale(y.size(), static_cast<float>(uniform ? b - a : b)),
      shift(y.size(), static_cast<float>(a));
  map_fma(context, y, scale, shift, y);
  return y;
}

}  // namespace graft
