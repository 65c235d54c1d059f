// The scalar reference of the scans (scan_table.h). Integers only: one build serves every CPU.

#include "graft/kernels/scan_table.h"

namespace graft {
namespace {

uint32_t sum(const uint32_t* x, int64_t n) noexcept {
  uint32_t total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

template <bool kExclusive>
uint32_t scan(const uint32_t* x, uint32_t* y, int64_t n, uint32_t carry, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t before = carry;
    carry += x[i];
    y[i] = kExclusive ? before : carry;
  }
  return carry;
}

constexpr ScanTable kTable = {sum, scan<false>, scan<true>};

}  // namespace

const ScanTable& scan_ref() noexcept { return kTable; }

}  // namespace graft
