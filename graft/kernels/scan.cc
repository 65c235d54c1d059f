#include "graft/kernels/scan.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/carry_chain.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/scan_table.h"

namespace graft {
namespace {

const ScanTable& table() noexcept {
  if (const ScanTable* simd = scan_simd()) return *simd;
  return scan_ref();
}

constexpr int64_t kTask = 32768;  // 128 KB: summed, it is still in L2 when it is scanned

int64_t num_tasks(int64_t n) noexcept { return (n + kTask - 1) / kTask; }

using Scan = decltype(ScanTable::inclusive);
void scan(Context& context, const ScanTable& t, Scan part, std::span<const uint32_t> x,
          std::span<uint32_t> y) noexcept {
  assert(x.size() == y.size());
  const auto n = static_cast<int64_t>(x.size());
  const bool stream = leaves_cache(n);
  if (n <= kTask || context.num_threads() == 1) {
    part(x.data(), y.data(), n, 0, stream);
    return;
  }
  CarryChain chain(context, num_tasks(n), 0);
  context.pool().parallel(num_tasks(n), [&](int64_t task, int) {
    const int64_t begin = task * kTask, size = std::min(kTask, n - begin);
    const auto carry = static_cast<uint32_t>(chain.pass(task, t.sum(x.data() + begin, size)));
    part(x.data() + begin, y.data() + begin, size, carry, stream);
  });
}

}  // namespace

ScratchNeed scan_scratch(int64_t n) noexcept { return CarryChain::scratch(num_tasks(n)); }

void scan_exclusive(Context& context, std::span<const uint32_t> x, std::span<uint32_t> y) noexcept {
  const ScanTable& t = table();
  scan(context, t, t.exclusive, x, y);
}
void scan_inclusive(Context& context, std::span<const uint32_t> x, std::span<uint32_t> y) noexcept {
  const ScanTable& t = table();
  scan(context, t, t.inclusive, x, y);
}

}  // namespace graft
