#include "graft/kernels/compact.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "graft/kernels/carry_chain.h"
#include "graft/kernels/compact_table.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const CompactTable& table() noexcept {
  if (const CompactTable* simd = compact_simd()) return *simd;
  return compact_ref();
}

constexpr int64_t kTask = 32768;  // 128 KB: counted, it is still in L2 when it is moved

int64_t num_tasks(int64_t n) noexcept { return (n + kTask - 1) / kTask; }

// The largest float at or below t: for a float x, x > t exactly if x is above it.
float round_down(double t) noexcept {
  const auto nearest = static_cast<float>(t);
  return static_cast<double>(nearest) > t ? std::nextafter(nearest, -std::numeric_limits<float>::infinity()) : nearest;
}

// count(begin, n) and keep(begin, n, y, room, stream) on parts.
template <typename Count, typename Keep>
uint32_t compact(Context& context, int64_t n, float* y, Count&& count, Keep&& keep) noexcept {
  const bool stream = leaves_cache(n);
  if (n <= kTask || context.num_threads() == 1) return static_cast<uint32_t>(keep(0, n, y, n, stream));
  const int64_t tasks = num_tasks(n);
  CarryChain chain(context, tasks, 0);
  context.pool().parallel(tasks, [&](int64_t task, int) {
    const int64_t begin = task * kTask, size = std::min(kTask, n - begin);
    const int64_t own = count(begin, size);
    const auto before = static_cast<int64_t>(chain.pass(task, static_cast<uint64_t>(own)));
    keep(begin, size, y + before, own, stream);
  });
  return static_cast<uint32_t>(chain.total(tasks));
}

}  // namespace

ScratchNeed compact_scratch(int64_t n) noexcept { return CarryChain::scratch(num_tasks(n)); }

uint32_t compact_if(Context& context, std::span<const float> x, double threshold, std::span<float> y) noexcept {
  assert(y.size() >= x.size());
  const CompactTable& t = table();
  const float limit = round_down(threshold);
  return compact(
      context, static_cast<int64_t>(x.size()), y.data(),
      [&](int64_t begin, int64_t n) { return t.count_above(x.data() + begin, limit, n); },
      [&](int64_t begin, int64_t n, float* to, int64_t room, bool stream) {
        return t.keep_above(x.data() + begin, limit, n, to, room, stream);
      });
}

uint32_t compact_mask(Context& context, std::span<const float> x, std::span<const uint8_t> mask,
                      std::span<float> y) noexcept {
  assert(y.size() >= x.size() && mask.size() == x.size());
  const CompactTable& t = table();
  return compact(
      context, static_cast<int64_t>(x.size()), y.data(),
      [&](int64_t begin, int64_t n) { return t.count_mask(mask.data() + begin, n); },
      [&](int64_t begin, int64_t n, float* to, int64_t room, bool stream) {
        return t.keep_mask(x.data() + begin, mask.data() + begin, n, to, room, stream);
      });
}

}  // namespace graft
