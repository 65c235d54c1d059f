#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/prng_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/math_inl.h"
#include "graft/kernels/philox_inl.h"
// clang-format on

#include "graft/kernels/prng_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

using ValueTag = hn::RebindToFloat<WordTag>;
using SignedTag = hn::RebindToSigned<WordTag>;

// Calls body(store), store(vector, tag, address) going past the cache where that is asked for and the address allows it.
template <class T, class Body>
HWY_INLINE int64_t with_store(T* y, bool past, const Body& body) {
  if (past && reinterpret_cast<uintptr_t>(y) % (sizeof(T) * hn::MaxLanes(WordTag())) == 0) {
    const int64_t done = body([](auto v, auto d, T* at) HWY_ATTR { hn::Stream(v, d, at); });
    hwy::FlushStream();
    return done;
  }
  return body([](auto v, auto d, T* at) HWY_ATTR { hn::StoreU(v, d, at); });
}

int64_t words(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t* y, bool past) noexcept {
  const PhiloxLanes lanes(s);
  return with_store(y, past, [&](const auto& store) HWY_ATTR {
    return lanes.words(block, blocks, [&](int64_t i, auto w) HWY_ATTR { store(w, WordTag(), y + i); });
  });
}

// (word >> 8) as f32: below 2^24, so exact, and signed conversion serves.
template <class V>
HWY_INLINE hn::Vec<ValueTag> top_bits(V w) {
  return hn::ConvertTo(ValueTag(), hn::BitCast(SignedTag(), hn::ShiftRight<8>(w)));
}

int64_t uniform(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool past) noexcept {
  const PhiloxLanes lanes(s);
  const ValueTag d;
  return with_store(y, past, [&](const auto& store) HWY_ATTR {
    return lanes.words(block, blocks, [&](int64_t i, auto w) HWY_ATTR {
      store(hn::Mul(top_bits(w), hn::Set(d, 0x1p-24f)), d, y + i);
    });
  });
}

int64_t normal(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool past) noexcept {
  const PhiloxLanes lanes(s);
  const ValueTag d;
  return with_store(y, past, [&](const auto& store) HWY_ATTR {
    return lanes.groups(block, blocks, [&](int64_t at, auto w0, auto w1, auto w2, auto w3) HWY_ATTR {
      const auto u1 = hn::BitCast(WordTag(), PhiloxLanes::pair(w0, w2));
      const auto u2 = hn::BitCast(WordTag(), PhiloxLanes::pair(w1, w3));
      const auto u = hn::Mul(hn::Add(top_bits(u1), hn::Set(d, 1.0f)), hn::Set(d, 0x1p-24f));
      const auto radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0f), log_f32(d, u)));
      hn::Vec<ValueTag> sine, cosine;
      sincos_turns(d, hn::And(u2, hn::Set(WordTag(), 0xFFFFFF00u)), &sine, &cosine);
      const auto even = hn::Mul(radius, cosine), odd = hn::Mul(radius, sine);
      store(hn::InterleaveLower(d, even, odd), d, y + 4 * at);
      store(hn::InterleaveUpper(d, even, odd), d, y + 4 * at + 2 * kPhiloxLanes);
    });
  });
}

int64_t mask(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t limit, uint8_t* y) noexcept {
  const PhiloxLanes lanes(s);
  const SignedTag d;
  const hn::Rebind<uint8_t, SignedTag> bytes;
  const auto bound = hn::Set(d, static_cast<int32_t>(limit));
  return lanes.words(block, blocks, [&](int64_t i, auto w) HWY_ATTR {
    const auto kept = hn::Lt(hn::BitCast(d, hn::ShiftRight<8>(w)), bound);
    const auto ones = hn::BitCast(WordTag(), hn::IfThenElseZero(kept, hn::Set(d, 1)));
    hn::StoreU(hn::TruncateTo(bytes, ones), bytes, y + i);
  });
}

}  // namespace

constexpr PrngTable kPrngTable = {words, uniform, normal, mask};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const PrngTable* prng_simd() noexcept { return GRAFT_SIMD_TABLE(kPrngTable); }
}  // namespace graft
#endif
