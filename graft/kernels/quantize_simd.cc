#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/quantize_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/quantize_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

template <class D>
using HalfTag = hn::Rebind<hwy::float16_t, D>;
template <class D>
using ByteTag = hn::Rebind<int8_t, D>;

template <class D>
HWY_INLINE hn::Vec<D> load_half(D d, const f16* x) {
  return hn::PromoteTo(d, hn::LoadU(HalfTag<D>(), reinterpret_cast<const hwy::float16_t*>(x)));
}

// out[i] = value(tag, i): whole vectors, past the cache where `stream`, then single lanes. Out is of type T, the vectors of `Tag<D>`.
template <template <class> class Tag, class T, class Value>
HWY_INLINE void fill(T* out, int64_t n, bool stream, const Value& value) {
  using Lane = hn::TFromD<Tag<RowTag>>;
  auto* to = reinterpret_cast<Lane*>(out);
  int64_t i = 0;
  const auto single = [&](int64_t end) HWY_ATTR {
    for (; i < end; ++i) hn::StoreU(value(LaneTag(), i), Tag<LaneTag>(), to + i);
  };
  constexpr bool kWhole = kRowLanes * sizeof(T) >= 16;  // Stream writes 16 bytes even of a shorter vector
  if (kWhole && stream) {
    const auto apart =
        static_cast<int64_t>(reinterpret_cast<uintptr_t>(out) / sizeof(T) % static_cast<size_t>(kRowLanes));
    single(HWY_MIN(n, apart == 0 ? 0 : kRowLanes - apart));
    for (; i + kRowLanes <= n; i += kRowLanes) hn::Stream(value(RowTag(), i), Tag<RowTag>(), to + i);
    hwy::FlushStream();
  }
  for (; i + 2 * kRowLanes <= n; i += 2 * kRowLanes) {
    const auto first = value(RowTag(), i), second = value(RowTag(), i + kRowLanes);
    hn::StoreU(first, Tag<RowTag>(), to + i);
    hn::StoreU(second, Tag<RowTag>(), to + i + kRowLanes);
  }
  for (; i + kRowLanes <= n; i += kRowLanes) hn::StoreU(value(RowTag(), i), Tag<RowTag>(), to + i);
  single(n);
}

uint16_t max_abs(const f16* x, int64_t n) noexcept {
  const hn::CappedTag<uint16_t, 32> d;
  constexpr int64_t kWords = static_cast<int64_t>(hn::MaxLanes(d));
  const auto* bits = reinterpret_cast<const uint16_t*>(x);
  const auto magnitude = hn::Set(d, uint16_t{0x7FFF});
  auto first = hn::Zero(d), second = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * kWords <= n; i += 2 * kWords) {
    first = hn::Max(first, hn::And(hn::LoadU(d, bits + i), magnitude));
    second = hn::Max(second, hn::And(hn::LoadU(d, bits + i + kWords), magnitude));
  }
  HWY_ALIGN uint16_t lanes[kWords];
  hn::Store(hn::Max(first, second), d, lanes);
  uint16_t most = 0;
  for (int64_t k = 0; k < kWords; ++k) most = HWY_MAX(most, lanes[k]);
  for (; i < n; ++i) most = HWY_MAX(most, static_cast<uint16_t>(bits[i] & 0x7FFF));
  return most;
}

void to_i8(const f16* x, float scale, int8_t* q, int64_t n, bool stream) noexcept {
  const float inverse = 1.0f / scale;
  fill<ByteTag>(q, n, stream, [=](auto d, int64_t i) HWY_ATTR {
    const auto v = load_half(d, x + i), r = hn::Set(d, inverse);
    const auto near = hn::Mul(v, r);
    const auto quotient = hn::MulAdd(hn::NegMulAdd(near, hn::Set(d, scale), v), r, near);
    // 1.5 x 2^23 leaves the rounded integer in the low bits.
    const hn::RebindToUnsigned<decltype(d)> du;
    const auto bits = hn::BitCast(du, hn::Add(quotient, hn::Set(d, 0x1.8p23f)));
    const ByteTag<decltype(d)> di;
    if constexpr (hn::MaxLanes(decltype(d)()) == 1) {
      return hn::Set(di, static_cast<int8_t>(hn::GetLane(bits)));
    } else {
      return hn::BitCast(di, hn::TruncateTo(hn::RebindToUnsigned<decltype(di)>(), bits));
    }
  });
}

void from_i8(const int8_t* q, float scale, f16* x, int64_t n, bool stream) noexcept {
  fill<HalfTag>(x, n, stream, [=](auto d, int64_t i) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> di;
    const auto v = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(ByteTag<decltype(d)>(), q + i)));
    return hn::DemoteTo(HalfTag<decltype(d)>(), hn::Mul(v, hn::Set(d, scale)));
  });
}

void convert_to_f16(const float* x, f16* y, int64_t n, bool stream) noexcept {
  fill<HalfTag>(y, n, stream,
                [=](auto d, int64_t i) HWY_ATTR { return hn::DemoteTo(HalfTag<decltype(d)>(), hn::LoadU(d, x + i)); });
}

}  // namespace

constexpr QuantizeTable kQuantizeTable = {max_abs, to_i8, from_i8, convert_to_f16};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const QuantizeTable* quantize_simd() noexcept { return GRAFT_SIMD_TABLE(kQuantizeTable); }
}  // namespace graft
#endif
