#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/scan_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on

#include "graft/kernels/scan_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<uint32_t, 16>;
using Words = hn::Vec<Tag>;
constexpr int64_t kN = static_cast<int64_t>(hn::MaxLanes(Tag()));

// Prefix sums over the lanes, and the last of them in every lane.
struct Prefix {
  Words sums, total;
};
HWY_INLINE Prefix prefix(Words v) {
  const Tag d;
  v = hn::Add(v, hn::ShiftLeftLanes<1>(d, v));  // within blocks of four
  v = hn::Add(v, hn::ShiftLeftLanes<2>(d, v));
  const Words blocks = hn::Broadcast<3>(v);
#if HWY_MAX_BYTES == 64
  // Two steps over the four blocks: b0, b0 + b1, b1 + b2, b2 + b3, then what stands two blocks before.
  alignas(64) constexpr uint32_t kBack1[16] = {0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  alignas(64) constexpr uint32_t kBack2[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7};
  alignas(64) constexpr uint32_t kLast[16] = {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15};
  const auto after1 = hn::Not(hn::FirstN(d, 4)), after2 = hn::Not(hn::FirstN(d, 8));
  const Words one = hn::IfThenElseZero(after1, hn::TableLookupLanes(blocks, hn::SetTableIndices(d, kBack1)));
  const Words pairs = hn::Add(blocks, one);  // block b: b + (b - 1)
  const Words two = hn::IfThenElseZero(after2, hn::TableLookupLanes(pairs, hn::SetTableIndices(d, kBack2)));
  v = hn::Add(hn::Add(v, one), two);
  return {v, hn::TableLookupLanes(v, hn::SetTableIndices(d, kLast))};
#elif HWY_MAX_BYTES == 32
  v = hn::Add(v, hn::ConcatLowerLower(d, blocks, hn::Zero(d)));
  const Words ends = hn::Broadcast<3>(v);
  return {v, hn::ConcatUpperUpper(d, ends, ends)};
#else
  return {v, blocks};
#endif
}

template <bool kExclusive>
uint32_t scan(const uint32_t* x, uint32_t* y, int64_t n, uint32_t carry, bool stream) noexcept {
  const Tag d;
  int64_t i = 0;
  const auto single = [&](int64_t end) {
    for (; i < end; ++i) {
      const uint32_t before = carry;
      carry += x[i];
      y[i] = kExclusive ? before : carry;
    }
  };
  if (stream) {
    const auto apart = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(uint32_t) % kN);
    single(HWY_MIN(n, apart == 0 ? 0 : kN - apart));
  }
  Words running = hn::Set(d, carry);
  const auto step = [&](int64_t at) HWY_ATTR {
    const Words v = hn::LoadU(d, x + at);
    const Prefix p = prefix(v);
    const Words sums = hn::Add(kExclusive ? hn::Sub(p.sums, v) : p.sums, running);
    running = hn::Add(running, p.total);
    return sums;
  };
  if (stream) {
    for (; i + kN <= n; i += kN) hn::Stream(step(i), d, y + i);
    hwy::FlushStream();
  } else {
    for (; i + kN <= n; i += kN) hn::StoreU(step(i), d, y + i);
  }
  carry = hn::GetLane(running);
  single(n);
  return carry;
}

uint32_t sum(const uint32_t* x, int64_t n) noexcept {
  const Tag d;
  Words a = hn::Zero(d), b = a, c = a, e = a;
  int64_t i = 0;
  for (; i + 4 * kN <= n; i += 4 * kN) {
    a = hn::Add(a, hn::LoadU(d, x + i));
    b = hn::Add(b, hn::LoadU(d, x + i + kN));
    c = hn::Add(c, hn::LoadU(d, x + i + 2 * kN));
    e = hn::Add(e, hn::LoadU(d, x + i + 3 * kN));
  }
  uint32_t total = hn::GetLane(prefix(hn::Add(hn::Add(a, b), hn::Add(c, e))).total);
  for (; i < n; ++i) total += x[i];
  return total;
}

}  // namespace

constexpr ScanTable kScanTable = {sum, scan<false>, scan<true>};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const ScanTable* scan_simd() noexcept { return GRAFT_SIMD_TABLE(kScanTable); }
}  // namespace graft
#endif
