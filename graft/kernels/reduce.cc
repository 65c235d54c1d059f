#include "graft/kernels/reduce.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/reduce_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/sum_blocks_inl.h"

namespace graft {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

const ReduceTable& table() noexcept {
  if (const ReduceTable* simd = reduce_simd()) return *simd;
  return pick_reference(reduce_ref(), reduce_fma_ref());
}

// The sum of block(begin, size) over all blocks, in f64, ascending.
template <typename Block>
double sum_of_blocks(Context& context, int64_t n, Block&& block) noexcept {
  float* sums = context.shared<float>();
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) { sums[b] = block(begin, size); });
  double total = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) total += static_cast<double>(sums[b]);
  return total;
}

int64_t length(std::span<const float> x) noexcept { return static_cast<int64_t>(x.size()); }

double total_sum(Context& context, std::span<const float> x) noexcept {
  return sum_of_blocks(context, length(x),
                       [&, t = &table()](int64_t begin, int64_t n) { return t->sum(x.data() + begin, n); });
}
double total_squares(Context& context, std::span<const float> x) noexcept {
  return sum_of_blocks(context, length(x),
                       [&, t = &table()](int64_t begin, int64_t n) { return t->square_sum(x.data() + begin, n); });
}

// The block whose value is the first NaN, or else the first extreme one.
int64_t extreme_block(const float* best, int64_t n, bool largest) noexcept {
  int64_t at = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) {
    if (best[b] != best[b]) return b;
    if (largest ? best[b] > best[at] : best[b] < best[at]) at = b;
  }
  return at;
}
ArgValue first_in_block(const ReduceTable& t, std::span<const float> x, int64_t block, float value) noexcept {
  const int64_t begin = block * kSumBlock;
  const int64_t at = t.first_equal(x.data() + begin, value, std::min(kSumBlock, length(x) - begin));
  return {value, static_cast<int32_t>(begin + at)};
}

// The extreme value of each block, then of all of them.
ArgValue extreme(Context& context, std::span<const float> x, bool largest, bool with_index) noexcept {
  assert(!x.empty());
  const ReduceTable& t = table();
  const int64_t n = length(x);
  float* best = context.shared<float>();
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    best[b] = largest ? t.max(x.data() + begin, size) : t.min(x.data() + begin, size);
  });
  const int64_t at = extreme_block(best, n, largest);
  return with_index ? first_in_block(t, x, at, best[at]) : ArgValue{best[at], 0};
}

}  // namespace

ScratchNeed reduce_scratch(int64_t n) noexcept {
  return {.shared = 2 * sizeof(float) * static_cast<size_t>(num_sum_blocks(n))};
}

float reduce_sum(Context& context, std::span<const float> x) noexcept {
  return static_cast<float>(total_sum(context, x));
}
float reduce_mean(Context& context, std::span<const float> x) noexcept {
  return x.empty() ? kNaN : static_cast<float>(total_sum(context, x) / static_cast<double>(x.size()));
}
float reduce_min(Context& context, std::span<const float> x) noexcept {
  return extreme(context, x, false, false).value;
}
float reduce_max(Context& context, std::span<const float> x) noexcept { return extreme(context, x, true, false).value; }
ArgValue reduce_argmax(Context& context, std::span<const float> x) noexcept { return extreme(context, x, true, true); }
ArgValue reduce_argmin(Context& context, std::span<const float> x) noexcept { return extreme(context, x, false, true); }

float reduce_l2(Context& context, std::span<const float> x) noexcept {
  return static_cast<float>(std::sqrt(total_squares(context, x)));
}

float reduce_var(Context& context, std::span<const float> x, int64_t ddof) noexcept {
  const int64_t n = length(x);
  if (n <= ddof || n == 0) return kNaN;
  const ReduceTable& t = table();
  float* sums = context.shared<float>();
  float* squares = sums + num_sum_blocks(n);
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    sums[b] = t.sum(x.data() + begin, size);
    squares[b] = t.centred_square_sum(x.data() + begin, sums[b] / static_cast<float>(size), size);
  });
  return static_cast<float>(merged_moments(sums, squares, n).m2 / static_cast<double>(n - ddof));
}
float reduce_stddev(Context& context, std::span<const float> x, int64_t ddof) noexcept {
  return std::sqrt(reduce_var(context, x, ddof));
}

ScratchNeed reduce_moments_scratch(int64_t n) noexcept {
  return {.shared = 4 * sizeof(float) * static_cast<size_t>(num_sum_blocks(n))};
}
Moments reduce_moments(Context& context, std::span<const float> x) noexcept {
  assert(!x.empty());
  const ReduceTable& t = table();
  const int64_t n = length(x), blocks = num_sum_blocks(n);
  float* sums = context.shared<float>();
  float *squares = sums + blocks, *least = squares + blocks, *greatest = least + blocks;
  for_sum_blocks(context, n,
                 [&](int64_t b, int64_t begin, int64_t size) {  // a block is read four times from the first level
                   const float* block = x.data() + begin;
                   sums[b] = t.sum(block, size);
                   squares[b] = t.centred_square_sum(block, sums[b] / static_cast<float>(size), size);
                   least[b] = t.min(block, size);
                   greatest[b] = t.max(block, size);
                 });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += static_cast<double>(sums[b]);
  Moments m;
  m.mean = static_cast<float>(total / static_cast<double>(n));
  m.variance = static_cast<float>(merged_moments(sums, squares, n).m2 / static_cast<double>(n));
  const int64_t low = extreme_block(least, n, false), high = extreme_block(greatest, n, true);
  m.min = first_in_block(t, x, low, least[low]);
  m.max = first_in_block(t, x, high, greatest[high]);
  return m;
}

ScratchNeed histogram_scratch(int64_t bins) noexcept {
  return {.per_worker = sizeof(uint32_t) * static_cast<size_t>(kHistogramCopies * bins)};
}
void reduce_histogram(Context& context, std::span<const float> x, float low, float high,
                      std::span<uint32_t> counts) noexcept {
  const ReduceTable& t = table();
  const auto bins = static_cast<int64_t>(counts.size());
  const auto scale =
      static_cast<float>(static_cast<double>(bins) / (static_cast<double>(high) - static_cast<double>(low)));
  for (int worker = 0; worker < context.num_threads(); ++worker) {
    std::fill_n(context.worker<uint32_t>(worker), kHistogramCopies * bins, 0u);
  }
  constexpr int64_t kTask = 65536;
  const int64_t n = length(x);
  context.pool().parallel((n + kTask - 1) / kTask, [&](int64_t task, int worker) {
    t.histogram(x.data() + task * kTask, low, high, scale, bins, context.worker<uint32_t>(worker),
                std::min(kTask, n - task * kTask));
  });
  std::fill(counts.begin(), counts.end(), 0u);
  for (int worker = 0; worker < context.num_threads(); ++worker) {
    const uint32_t* from = context.worker<uint32_t>(worker);
    for (int64_t copy = 0; copy < kHistogramCopies; ++copy) {
      for (int64_t k = 0; k < bins; ++k) counts[static_cast<size_t>(k)] += from[copy * bins + k];
    }
  }
}

float map_reduce_square_sum(Context& context, std::span<const float> x) noexcept {
  return static_cast<float>(total_squares(context, x));
}
float map_reduce_abs_sum(Context& context, std::span<const float> x) noexcept {
  return static_cast<float>(sum_of_blocks(
      context, length(x), [&, t = &table()](int64_t begin, int64_t n) { return t->abs_sum(x.data() + begin, n); }));
}
float map_reduce_masked_sum(Context& context, std::span<const float> x, std::span<const uint8_t> mask) noexcept {
  assert(x.size() == mask.size());
  return static_cast<float>(sum_of_blocks(context, length(x), [&, t = &table()](int64_t begin, int64_t n) {
    return t->masked_sum(x.data() + begin, mask.data() + begin, n);
  }));
}
uint32_t map_reduce_threshold_count(Context& context, std::span<const float> x, float threshold) noexcept {
  const ReduceTable& t = table();
  auto* counts = context.shared<uint32_t>();
  const int64_t n = length(x);
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    counts[b] = static_cast<uint32_t>(t.count_above(x.data() + begin, threshold, size));
  });
  uint32_t total = 0;
  for (int64_t b = 0; b < num_sum_blocks(n); ++b) total += counts[b];
  return total;
}

}  // namespace graft
