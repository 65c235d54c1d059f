#include "graft/kernels/select.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "graft/kernels/radix_inl.h"
#include "graft/kernels/select_table.h"

namespace graft {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kSmall = 4096;  // up to here a sample does not pay
constexpr int64_t kMostSample = 4096;
constexpr int64_t kTask = 65536;

// Elements of a sample of n: sorting 4,096 would take longer than all the rest of a short x.
int64_t sample_size(int64_t n) noexcept { return n < 4 * kTask ? kMostSample / 4 : kMostSample; }

const SelectTable& table() noexcept {
  if (const SelectTable* simd = select_simd()) return *simd;
  return select_ref();
}

int64_t num_tasks(int64_t n) noexcept { return (n + kTask - 1) / kTask; }

// The context's shared scratch. What the tasks keep stands apart, each at its own part's place.
struct Workspace {
  float* kept;       // [N], or candidates' indices
  uint32_t* sample;  // [sample_size] keys of x, ascending
  uint32_t* inner;   // the same of what one sweep kept
  Split* splits;     // [tasks]
  int64_t* counts;   // [tasks]
  std::byte* radix;
  size_t bytes = 0;

  Workspace(int64_t n, std::byte* at) noexcept {
    const auto take = [&]<typename T>(T*& to, size_t size) {
      to = reinterpret_cast<T*>(at + bytes);
      bytes += (size * sizeof(T) + 63) / 64 * 64;
    };
    take(kept, static_cast<size_t>(n) + 64);
    take(sample, kMostSample);
    take(inner, kMostSample);
    take(splits, static_cast<size_t>(num_tasks(n)));
    take(counts, static_cast<size_t>(num_tasks(n)));
    take(radix, std::max(radix_bytes<uint64_t>(n), radix_bytes<uint32_t>(kMostSample)));
  }
};

// f(task, begin, size) over parts of n elements.
template <typename F>
void for_tasks(Context& context, int64_t n, F&& f) noexcept {
  const auto one = [&](int64_t task) { f(task, task * kTask, std::min(kTask, n - task * kTask)); };
  if (n <= kTask) return one(0);
  context.pool().parallel(num_tasks(n), [&](int64_t task, int) { one(task); });
}

// A sorted sample: one element of each of sample_size stretches, at a place that no period of the data follows.
void take_sample(Context& context, std::span<const float> x, const Workspace& w, uint32_t* sample) noexcept {
  const auto n = static_cast<uint64_t>(x.size());
  const int64_t count = sample_size(static_cast<int64_t>(n));
  radix_sort<uint32_t>(
      context, count, w.radix,
      [&, stretches = static_cast<uint64_t>(count), size = n / static_cast<uint64_t>(count)](int64_t i) {
        const uint64_t begin = n * static_cast<uint64_t>(i) / stretches;
        const uint64_t mixed = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u >> 32;
        return ordered_key(x[begin + mixed % size]);
      },
      [sample](uint32_t place, uint32_t key) { sample[place] = key; });
}

// The value of rank k by counting digits of the keys, most significant first. x has no NaN.
float select_by_digits(std::span<const float> x, int64_t k) noexcept {
  uint32_t prefix = 0;
  for (int digit = kDigits - 1; digit >= 0; --digit) {
    uint32_t counts[kBuckets] = {};
    const int shift = digit * kDigitBits;
    const uint64_t above = uint64_t{prefix} >> (shift + kDigitBits);
    for (const float v : x) {
      const uint32_t key = ordered_key(v);
      if (uint64_t{key} >> (shift + kDigitBits) == above) ++counts[key >> shift & (kBuckets - 1)];
    }
    uint32_t bucket = 0;
    while (k >= counts[bucket]) k -= counts[bucket++];
    prefix |= bucket << shift;
  }
  return float_of_key(prefix);
}

struct Neighbours {
  float at, next;  // of rank k and k + 1; next = at for the last rank
};

// By partition of the n values in `values`, which it reorders.
Neighbours select_small(float* values, int64_t n, int64_t k) noexcept {
  std::nth_element(values, values + k, values + n);
  return {values[k], k + 1 < n ? *std::min_element(values + k + 1, values + n) : values[k]};
}

// One sweep: what of x lies around rank k moves to w.kept. False: x has NaN.
struct Swept {
  int64_t below = 0, between = 0;
  float low = 0;
  bool nan = false;
};
Swept sweep(Context& context, std::span<const float> x, int64_t k, const uint32_t* sample,
            const Workspace& w) noexcept {
  const auto n = static_cast<int64_t>(x.size());
  const SelectTable& t = table();
  // The rank in the sample, give or take 4 standard deviations.
  const auto count = static_cast<double>(sample_size(n));
  const double share = static_cast<double>(k) / static_cast<double>(n), middle = share * count;
  const double margin = 4 * std::sqrt(count * share * (1 - share)) + 8;
  const auto sample_at = [&](double rank, float beyond) {
    return rank < 0 || rank >= count ? beyond : float_of_key(sample[static_cast<int64_t>(rank)]);
  };
  Swept s;
  s.low = sample_at(middle - margin, -kInfinity);
  const float high = sample_at(middle + margin, kInfinity);
  s.nan = s.low != s.low || high != high;
  if (s.nan) return s;
  for_tasks(context, n, [&](int64_t task, int64_t begin, int64_t size) {
    w.splits[task] = t.split(x.data() + begin, size, s.low, high, w.kept + begin);
  });
  for (int64_t task = 0; task < num_tasks(n); ++task) {
    const Split& part = w.splits[task];
    std::memmove(w.kept + s.between, w.kept + task * kTask, static_cast<size_t>(part.between) * sizeof(float));
    s.below += part.low, s.between += part.between;
    s.nan |= part.nan;
  }
  return s;
}

// w.sample is the sample of x if it is large. False: x has NaN.
bool select_rank(Context& context, std::span<const float> x, int64_t k, const Workspace& w,
                 Neighbours& found) noexcept {
  const auto n = static_cast<int64_t>(x.size());
  if (n <= kSmall) {
    if (std::any_of(x.begin(), x.end(), [](float v) { return v != v; })) return false;
    std::copy(x.begin(), x.end(), w.kept);
    found = select_small(w.kept, n, k);
    return true;
  }
  const int64_t next = std::min(k + 1, n - 1);
  const Swept outer = sweep(context, x, k, w.sample, w);
  if (outer.nan) return false;
  if (k >= outer.below && next < outer.below + outer.between) {
    int64_t rank = k - outer.below, left = outer.between;
    if (left > kSmall) {  // once more: a sample of what is left costs less than its partition
      const std::span<const float> kept(w.kept, static_cast<size_t>(left));
      take_sample(context, kept, w, w.inner);
      const Swept inner = sweep(context, kept, rank, w.inner, w);
      if (rank < inner.below || next - outer.below >= inner.below + inner.between) {
        found = {select_by_digits(x, k), select_by_digits(x, next)};
        return true;
      }
      rank -= inner.below, left = inner.between;
    }
    found = select_small(w.kept, left, rank);
    return true;
  }
  const auto equal = std::count(x.begin(), x.end(), outer.low);
  if (k >= outer.below - equal && next < outer.below) {  // many are alike
    found = {outer.low, outer.low};
  } else {
    found = {select_by_digits(x, k), select_by_digits(x, next)};
  }
  return true;
}

// lower + share (upper - lower); equal neighbours, infinite ones too, are the answer themselves. A zero is +0.
float between(const Neighbours& v, double share) noexcept {
  if (share == 0 || v.at == v.next) return v.at + 0.0f;
  const double lower = static_cast<double>(v.at);
  return static_cast<float>(lower + share * (static_cast<double>(v.next) - lower)) + 0.0f;
}

void percentiles(Context& context, std::span<const float> x, std::span<const float> p, std::span<float> y) noexcept {
  const auto n = static_cast<int64_t>(x.size());
  const Workspace w(n, context.shared<std::byte>());
  if (n > kSmall) take_sample(context, x, w, w.sample);
  for (size_t i = 0; i < p.size(); ++i) {
    y[i] = kNaN;
    if (!(p[i] >= 0 && p[i] <= 100)) continue;
    const double h = static_cast<double>(n - 1) * static_cast<double>(p[i]) / 100;
    const int64_t k = std::min(static_cast<int64_t>(h), n - 1);
    Neighbours found;
    if (!select_rank(context, x, k, w, found)) return std::fill(y.begin(), y.end(), kNaN);
    y[i] = between(found, h - static_cast<double>(k));
  }
}

// Larger first, NaN before all, both zeros alike; the index settles ties.
uint64_t rank_item(float x, uint32_t index) noexcept { return uint64_t{~ordered_key(x == 0 ? 0.0f : x)} << 32 | index; }

}  // namespace

ScratchNeed select_scratch(int64_t n) noexcept { return {.shared = Workspace(n, nullptr).bytes}; }

float median_select(Context& context, std::span<const float> x) noexcept {
  const float half = 50;
  float y = kNaN;
  if (!x.empty()) percentiles(context, x, {&half, 1}, {&y, 1});
  return y;
}

void percentile_select(Context& context, std::span<const float> x, std::span<const float> p,
                       std::span<float> y) noexcept {
  assert(p.size() == y.size());
  if (x.empty()) return std::fill(y.begin(), y.end(), kNaN);
  percentiles(context, x, p, y);
}

void topk_select(Context& context, std::span<const float> x, std::span<float> values,
                 std::span<int32_t> indices) noexcept {
  const auto n = static_cast<int64_t>(x.size()), k = static_cast<int64_t>(values.size());
  assert(k <= n && values.size() == indices.size());
  if (k == 0) return;
  const Workspace w(n, context.shared<std::byte>());
  auto* candidates = reinterpret_cast<int32_t*>(w.kept);
  int64_t count = 0;  // of candidates; 0: everything is one
  if (n > kSmall && k < n / 4) {
    take_sample(context, x, w, w.sample);
    const int64_t sampled = sample_size(n);
    const double expected = static_cast<double>(k) * static_cast<double>(sampled) / static_cast<double>(n);
    const auto from_top = static_cast<int64_t>(expected + 4 * std::sqrt(expected + 1) + 4);
    float low = float_of_key(w.sample[std::max<int64_t>(0, sampled - 1 - from_top)]);
    if (low != low) low = kInfinity;
    const SelectTable& t = table();
    for_tasks(context, n, [&](int64_t task, int64_t begin, int64_t size) {
      w.counts[task] = t.not_below(x.data() + begin, size, low, static_cast<int32_t>(begin), candidates + begin);
    });
    for (int64_t task = 0; task < num_tasks(n); ++task) {
      std::memmove(candidates + count, candidates + task * kTask,
                   static_cast<size_t>(w.counts[task]) * sizeof(int32_t));
      count += w.counts[task];
    }
    if (count < k) count = 0;
  }
  const auto write = [&](uint32_t place, uint64_t item) {
    if (place >= values.size()) return;
    const auto index = static_cast<uint32_t>(item);
    values[place] = x[index];
    indices[place] = static_cast<int32_t>(index);
  };
  if (count > 0) {
    radix_sort<uint64_t>(
        context, count, w.radix,
        [&](int64_t i) {
          return rank_item(x[static_cast<size_t>(candidates[i])], static_cast<uint32_t>(candidates[i]));
        },
        write);
  } else {
    radix_sort<uint64_t>(
        context, n, w.radix, [&](int64_t i) { return rank_item(x[static_cast<size_t>(i)], static_cast<uint32_t>(i)); },
        write);
  }
}

}  // namespace graft
