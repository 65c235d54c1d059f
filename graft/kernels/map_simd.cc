#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/map_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/map_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

#include "graft/kernels/map_chains_inl.h"

// y[i] = value(tag, i) for i in [0, n). Streaming stores need an aligned y: single lanes lead up to it.
template <class Value>
HWY_INLINE void fill(float* y, int64_t n, bool stream, const Value& value) {
  int64_t i = 0;
  if (stream) {
    const auto apart = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float) % kRowLanes);
    const int64_t head = apart == 0 ? 0 : kRowLanes - apart;
    for (; i < n && i < head; ++i) hn::StoreU(value(LaneTag(), i), LaneTag(), y + i);
    for (; i + kRowLanes <= n; i += kRowLanes) hn::Stream(value(RowTag(), i), RowTag(), y + i);
    hwy::FlushStream();
  } else {
    for (; i + 2 * kRowLanes <= n; i += 2 * kRowLanes) {
      const auto first = value(RowTag(), i), second = value(RowTag(), i + kRowLanes);
      hn::StoreU(first, RowTag(), y + i);
      hn::StoreU(second, RowTag(), y + i + kRowLanes);
    }
    for (; i + kRowLanes <= n; i += kRowLanes) hn::StoreU(value(RowTag(), i), RowTag(), y + i);
  }
  for (; i < n; ++i) hn::StoreU(value(LaneTag(), i), LaneTag(), y + i);
}

template <class Map>
HWY_INLINE void each(const Map& map, const float* x, float* y, int64_t n, bool stream) {
  fill(y, n, stream, [&](auto d, int64_t i) HWY_ATTR { return map(d, hn::LoadU(d, x + i)); });
}

void unary(UnaryMap op, const float* x, float p, float q, float* y, int64_t n, bool stream) noexcept {
  const auto visit = [&](auto map) HWY_ATTR { each(map, x, y, n, stream); };
  GRAFT_VISIT_UNARY_MAP(op, p, q, visit)
}

template <class Map>
void binary(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept {
  fill(y, n, stream, [=](auto d, int64_t i) HWY_ATTR { return Map()(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

void ternary(const float* a, const float* b, const float* c, float* y, int64_t n, bool stream) noexcept {
  fill(y, n, stream, [=](auto d, int64_t i) HWY_ATTR {
    return FmaMap()(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i), hn::LoadU(d, c + i));
  });
}

template <class Holds>
HWY_INLINE void compare_each(const Holds& holds, const float* a, const float* b, uint8_t* mask, int64_t n) {
  const hn::Rebind<uint8_t, RowTag> bytes;
  const hn::RebindToUnsigned<RowTag> words;
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) {
    const auto yes = holds(hn::LoadU(RowTag(), a + i), hn::LoadU(RowTag(), b + i));
    const auto ones = hn::IfThenElseZero(hn::RebindMask(words, yes), hn::Set(words, 1u));
    hn::StoreU(hn::TruncateTo(bytes, ones), bytes, mask + i);
  }
  for (; i < n; ++i) {
    mask[i] = hn::CountTrue(LaneTag(), holds(hn::LoadU(LaneTag(), a + i), hn::LoadU(LaneTag(), b + i))) != 0 ? 1 : 0;
  }
}

void compare(Comparison op, const float* a, const float* b, uint8_t* mask, int64_t n) noexcept {
  switch (op) {
    case Comparison::kEq: return compare_each([](auto s, auto t) HWY_ATTR { return hn::Eq(s, t); }, a, b, mask, n);
    case Comparison::kNe:  // Not Ne, which some targets take as ordered: false beside NaN.
      return compare_each([](auto s, auto t) HWY_ATTR { return hn::Not(hn::Eq(s, t)); }, a, b, mask, n);
    case Comparison::kLt: return compare_each([](auto s, auto t) HWY_ATTR { return hn::Lt(s, t); }, a, b, mask, n);
    case Comparison::kLe: return compare_each([](auto s, auto t) HWY_ATTR { return hn::Le(s, t); }, a, b, mask, n);
    case Comparison::kGt: return compare_each([](auto s, auto t) HWY_ATTR { return hn::Gt(s, t); }, a, b, mask, n);
    case Comparison::kGe: return compare_each([](auto s, auto t) HWY_ATTR { return hn::Ge(s, t); }, a, b, mask, n);
  }
}

}  // namespace

constexpr MapTable kMapTable = {unary, binary<AddMap>, binary<MulMap>, binary<DivMap>, ternary, compare};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const MapTable* map_simd() noexcept { return GRAFT_SIMD_TABLE(kMapTable); }
}  // namespace graft
#endif
