#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/compact_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/compact_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

constexpr int64_t kN = kRowLanes;
using Row = hn::Vec<RowTag>;
using Kept = hn::Mask<RowTag>;

// Which of kN elements are kept, and whether one is.
struct Above {
  const float* x;
  float threshold;
  HWY_INLINE Kept operator()(int64_t i) const {
    return hn::Gt(hn::LoadU(RowTag(), x + i), hn::Set(RowTag(), threshold));
  }
  HWY_INLINE bool one(int64_t i) const { return x[i] > threshold; }
};
struct Marked {
  const uint8_t* mask;
  HWY_INLINE Kept operator()(int64_t i) const {
    const hn::Rebind<uint8_t, RowTag> bytes;
    const hn::RebindToUnsigned<RowTag> words;
    const auto wide = hn::PromoteTo(words, hn::LoadU(bytes, mask + i));
    return hn::RebindMask(RowTag(), hn::Ne(wide, hn::Zero(words)));
  }
  HWY_INLINE bool one(int64_t i) const { return mask[i] != 0; }
};

template <class Keep>
HWY_INLINE int64_t count(const Keep& keep, int64_t n) {
  int64_t kept = 0, i = 0;
  for (; i + kN <= n; i += kN) kept += static_cast<int64_t>(hn::CountTrue(RowTag(), keep(i)));
  for (; i < n; ++i) kept += keep.one(i) ? 1 : 0;
  return kept;
}

// Compressing to a register and storing all of it is quick everywhere; a compressing store is microcode on Zen 4.
template <class Keep>
HWY_INLINE int64_t keep_plain(const Keep& keep, const float* x, int64_t n, float* y, int64_t room) {
  int64_t kept = 0, i = 0;
  for (; i + kN <= n && kept + kN <= room; i += kN) {
    const Kept mask = keep(i);
    hn::StoreU(hn::Compress(hn::LoadU(RowTag(), x + i), mask), RowTag(), y + kept);
    kept += static_cast<int64_t>(hn::CountTrue(RowTag(), mask));
  }
  HWY_ALIGN float last[kN];  // near the end of the room only what is kept may be stored
  for (; i + kN <= n && kept < room; i += kN) {
    const Kept mask = keep(i);
    const auto some = static_cast<int64_t>(hn::CountTrue(RowTag(), mask));
    if (some == 0) continue;
    hn::Store(hn::Compress(hn::LoadU(RowTag(), x + i), mask), RowTag(), last);
    for (int64_t k = 0; k < some; ++k) y[kept + k] = last[k];
    kept += some;
  }
  for (; i < n; ++i) {
    if (keep.one(i)) y[kept++] = x[i];
  }
  return kept;
}

// Through a small stage, from which whole lines go past the cache. The stage begins where y's line does: its first `skip` elements
// belong to what stands before y.
template <class Keep>
HWY_INLINE int64_t keep_streaming(const Keep& keep, const float* x, int64_t n, float* y) {
  constexpr int64_t kLine = 16, kStage = 1024;
  HWY_ALIGN float stage[kStage + kN];
  int64_t skip = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float) % kLine);
  float* line = y - skip;
  int64_t filled = skip, written = 0, i = 0;
  const auto flush = [&]() HWY_ATTR {
    int64_t at = 0;
    if (skip > 0) {
      for (int64_t k = skip; k < kLine; ++k) line[k] = stage[k];
      at = kLine;
    }
    for (; at < kStage; at += kN) hn::Stream(hn::Load(RowTag(), stage + at), RowTag(), line + at);
    hn::Store(hn::Load(RowTag(), stage + kStage), RowTag(), stage);
    written += kStage - skip;
    filled -= kStage;
    line += kStage;
    skip = 0;
  };
  for (; i + kN <= n; i += kN) {
    const Kept mask = keep(i);
    hn::StoreU(hn::Compress(hn::LoadU(RowTag(), x + i), mask), RowTag(), stage + filled);
    filled += static_cast<int64_t>(hn::CountTrue(RowTag(), mask));
    if (filled >= kStage) flush();
  }
  for (int64_t k = skip; k < filled; ++k) line[k] = stage[k];
  int64_t kept = written + filled - skip;
  for (; i < n; ++i) {
    if (keep.one(i)) y[kept++] = x[i];
  }
  hwy::FlushStream();
  return kept;
}

int64_t count_above(const float* x, float threshold, int64_t n) noexcept { return count(Above{x, threshold}, n); }
int64_t count_mask(const uint8_t* mask, int64_t n) noexcept { return count(Marked{mask}, n); }
int64_t keep_above(const float* x, float threshold, int64_t n, float* y, int64_t room, bool stream) noexcept {
  const Above keep{x, threshold};
  return stream ? keep_streaming(keep, x, n, y) : keep_plain(keep, x, n, y, room);
}
int64_t keep_mask(const float* x, const uint8_t* mask, int64_t n, float* y, int64_t room, bool stream) noexcept {
  const Marked keep{mask};
  return stream ? keep_streaming(keep, x, n, y) : keep_plain(keep, x, n, y, room);
}

}  // namespace

constexpr CompactTable kCompactTable = {count_above, count_mask, keep_above, keep_mask};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const CompactTable* compact_simd() noexcept { return GRAFT_SIMD_TABLE(kCompactTable); }
}  // namespace graft
#endif
