#include "graft/kernels/correlation.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "graft/kernels/correlation_table.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/sum_blocks_inl.h"

namespace graft {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

const CorrelationTable& table() noexcept {
  if (const CorrelationTable* simd = correlation_simd()) return *simd;
  return pick_reference(correlation_ref(), correlation_fma_ref());
}

int64_t length(std::span<const float> x) noexcept { return static_cast<int64_t>(x.size()); }

struct Block {
  PairSums sums;
  PairMoments moments;
};
struct Joined {
  double x_mean = 0, y_mean = 0, xx = 0, yy = 0, xy = 0;
};

// Means and centred second moments of x and y. A block is centred at the rounded mean of each, and its sums of what is left put
// right both the mean and the moments: about any c, the sum of (x - c)(y - c') is Sxy + (sum x - c)(sum y - c') / n.
Joined join(Context& context, std::span<const float> x, std::span<const float> y) noexcept {
  assert(x.size() == y.size());
  const CorrelationTable& t = table();
  const int64_t n = length(x);
  auto* blocks = context.shared<Block>();
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    const PairSums s = t.sums(x.data() + begin, y.data() + begin, size);
    const PairSums centre = {s.x / static_cast<float>(size), s.y / static_cast<float>(size)};
    blocks[b] = {centre, t.moments(x.data() + begin, y.data() + begin, centre.x, centre.y, size)};
  });
  Joined all;
  double count = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) {
    const auto size = static_cast<double>(std::min(kSumBlock, n - b * kSumBlock));
    const PairMoments& m = blocks[b].moments;
    const double d = static_cast<double>(m.d), e = static_cast<double>(m.e);
    const double x_delta = static_cast<double>(blocks[b].sums.x) + d / size - all.x_mean;
    const double y_delta = static_cast<double>(blocks[b].sums.y) + e / size - all.y_mean;
    const double both = count + size, weight = count * size / both;
    all.xx += static_cast<double>(m.dd) - d * d / size + x_delta * x_delta * weight;
    all.yy += static_cast<double>(m.ee) - e * e / size + y_delta * y_delta * weight;
    all.xy += static_cast<double>(m.de) - d * e / size + x_delta * y_delta * weight;
    all.x_mean += x_delta * size / both;
    all.y_mean += y_delta * size / both;
    count = both;
  }
  return all;
}

// Rounding leaves a constant x some variance, far below any that f32 can show beside the mean: then it is looked at.
bool is_constant(std::span<const float> x, double sum_of_squares, double mean) noexcept {
  if (sum_of_squares > 1e-9 * mean * mean * static_cast<double>(x.size())) return false;
  return std::all_of(x.begin(), x.end(), [first = x[0]](float v) { return v == first; });
}

}  // namespace

ScratchNeed correlation_scratch(int64_t n) noexcept {
  return {.shared = sizeof(Block) * static_cast<size_t>(num_sum_blocks(n))};
}

float reduce_correlation(Context& context, std::span<const float> x, std::span<const float> y) noexcept {
  if (x.size() < 2) return kNaN;
  const Joined m = join(context, x, y);
  if (!(m.xx > 0 && m.yy > 0) || is_constant(x, m.xx, m.x_mean) || is_constant(y, m.yy, m.y_mean)) return kNaN;
  const double r = m.xy / std::sqrt(m.xx) / std::sqrt(m.yy);
  return r != r ? kNaN : static_cast<float>(std::clamp(r, -1.0, 1.0));
}
float reduce_covariance(Context& context, std::span<const float> x, std::span<const float> y, int64_t ddof) noexcept {
  if (x.empty() || length(x) <= ddof) return kNaN;
  return static_cast<float>(join(context, x, y).xy / static_cast<double>(length(x) - ddof));
}

float reduce_weighted_sum(Context& context, std::span<const float> x, std::span<const float> w) noexcept {
  assert(x.size() == w.size());
  const CorrelationTable& t = table();
  auto* sums = context.shared<float>();
  const int64_t n = length(x);
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    sums[b] = t.product(x.data() + begin, w.data() + begin, size);
  });
  double total = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) total += static_cast<double>(sums[b]);
  return static_cast<float>(total);
}
float reduce_weighted_mean(Context& context, std::span<const float> x, std::span<const float> w) noexcept {
  assert(x.size() == w.size());
  const CorrelationTable& t = table();
  auto* sums = context.shared<PairSums>();
  const int64_t n = length(x);
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    sums[b] = t.weighted(x.data() + begin, w.data() + begin, size);
  });
  double total = 0, weight = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) {
    total += static_cast<double>(sums[b].x);
    weight += static_cast<double>(sums[b].y);
  }
  return weight == 0 ? kNaN : static_cast<float>(total / weight);
}

}  // namespace graft
