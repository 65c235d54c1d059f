#pragma once

// A stable radix sort of items with 32-bit keys, least digit first: one sweep counts every digit, digits that are the same in all keys
// are skipped, and each pass moves the items to their places. Threads take a stretch each, with counts of their own. Internal to each
// file that includes it. There is one order of everything: variants do not differ.

#include <algorithm>
#include <bit>
#include <cstdint>

#include "graft/kernels/context.h"

namespace graft {
namespace {

// Ascending order of f32 as that of u32: -infinity … -0, +0 … infinity, NaN (any becomes the same one).
inline uint32_t ordered_key(float x) noexcept {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t flipped = bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
  return x != x ? 0xFFC00000u : flipped;
}
inline float float_of_key(uint32_t key) noexcept {
  return std::bit_cast<float>(key ^ (static_cast<uint32_t>(static_cast<int32_t>(~key) >> 31) | 0x80000000u));
}

inline uint32_t radix_key(uint32_t item) noexcept { return item; }
inline uint32_t radix_key(uint64_t item) noexcept { return static_cast<uint32_t>(item >> 32); }

constexpr int kDigitBits = 8, kDigits = 4, kBuckets = 1 << kDigitBits;
constexpr int64_t kMaxStretches = 64;
constexpr int64_t kLeastStretch = 16384;

using DigitCounts = uint32_t[kDigits][kBuckets];

// Bytes that radix_sort takes for n items.
template <typename Item>
size_t radix_bytes(int64_t n) noexcept {
  return kMaxStretches * sizeof(DigitCounts) + 2 * ((static_cast<size_t>(n) * sizeof(Item) + 63) / 64 * 64);
}

// Sorts read(0) … read(n - 1) by radix_key and calls write(place, item) for each. n < 2^32. `scratch`: radix_bytes, 64-byte aligned; it
// must not hold what read() reads.
template <typename Item, typename Read, typename Write>
void radix_sort(Context& context, int64_t n, std::byte* scratch, Read&& read, Write&& write) noexcept {
  auto* counts = reinterpret_cast<DigitCounts*>(scratch);
  auto* from = reinterpret_cast<Item*>(scratch + kMaxStretches * sizeof(DigitCounts));
  auto* to = reinterpret_cast<Item*>(reinterpret_cast<std::byte*>(from) +
                                     (static_cast<size_t>(n) * sizeof(Item) + 63) / 64 * 64);
  const int64_t stretches =
      std::clamp<int64_t>(n / kLeastStretch, 1, std::min<int64_t>(context.num_threads(), kMaxStretches));
  const auto each = [&](auto&& f) {
    const auto stretch = [&](int64_t t) { f(t, n * t / stretches, n * (t + 1) / stretches); };
    if (stretches == 1) return stretch(0);
    context.pool().parallel(stretches, [&](int64_t t, int) { stretch(t); });
  };
  const auto digit_of = [](Item item, int digit) { return radix_key(item) >> (digit * kDigitBits) & (kBuckets - 1); };

  each([&](int64_t t, int64_t begin, int64_t end) {
    DigitCounts& own = counts[t];
    std::fill_n(&own[0][0], kDigits * kBuckets, 0u);
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t key = radix_key(read(i));
      ++own[0][key & 255];
      ++own[1][key >> 8 & 255];
      ++own[2][key >> 16 & 255];
      ++own[3][key >> 24];
    }
  });
  int active[kDigits], passes = 0;
  for (int digit = 0; digit < kDigits && n > 0; ++digit) {
    const uint32_t first = digit_of(read(0), digit);
    uint64_t same = 0;
    for (int64_t t = 0; t < stretches; ++t) same += counts[t][digit][first];
    if (same != static_cast<uint64_t>(n)) active[passes++] = digit;
  }
  if (passes == 0) {
    for (int64_t i = 0; i < n; ++i) write(static_cast<uint32_t>(i), read(i));
    return;
  }

  const auto move = [&](int digit, auto&& get, auto&& put) {
    uint32_t place = 0;
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      for (int64_t t = 0; t < stretches; ++t) {
        const uint32_t count = counts[t][digit][bucket];
        counts[t][digit][bucket] = place;
        place += count;
      }
    }
    each([&](int64_t t, int64_t begin, int64_t end) {
      uint32_t* places = counts[t][digit];
      for (int64_t i = begin; i < end; ++i) {
        const Item item = get(i);
        put(places[digit_of(item, digit)]++, item);
      }
    });
  };
  for (int pass = 0; pass < passes; ++pass) {
    const int digit = active[pass];
    const auto stored = [from](int64_t i) { return from[i]; };
    const auto store = [to](uint32_t place, Item item) { to[place] = item; };
    if (pass > 0 && stretches > 1) {  // the items have moved between stretches
      each([&](int64_t t, int64_t begin, int64_t end) {
        uint32_t* own = counts[t][digit];
        std::fill_n(own, kBuckets, 0u);
        for (int64_t i = begin; i < end; ++i) ++own[digit_of(from[i], digit)];
      });
    }
    const bool last = pass + 1 == passes;
    if (pass == 0 && last) {
      move(digit, read, write);
    } else if (pass == 0) {
      move(digit, read, store);
    } else if (last) {
      move(digit, stored, write);
    } else {
      move(digit, stored, store);
    }
    std::swap(from, to);
  }
}

}  // namespace
}  // namespace graft
