#include "graft/kernels/prng.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "graft/base/random.h"
#include "graft/kernels/prng_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const PrngTable& reference() noexcept { return pick_reference(prng_ref(), prng_fma_ref()); }
const PrngTable& table() noexcept {
  const PrngTable* simd = prng_simd();
  return simd != nullptr ? *simd : reference();
}

// Draws [first, first + n) into y. blocks(table, block, count, y) writes whole blocks and tells how many it did.
template <typename T, typename Blocks>
void draw(uint64_t first, T* y, int64_t n, const Blocks& blocks) noexcept {
  std::array<T, 4> part;
  int64_t done = 0;
  if (first % 4 != 0) {  // the end of a block
    const auto skip = static_cast<int64_t>(first % 4);
    done = std::min(4 - skip, n);
    blocks(reference(), first / 4, int64_t{1}, part.data());
    std::copy_n(part.data() + skip, done, y);
  }
  const uint64_t block = (first + static_cast<uint64_t>(done)) / 4;
  const int64_t whole = (n - done) / 4;
  const int64_t quick = whole > 0 ? blocks(table(), block, whole, y + done) : 0;
  if (quick < whole) blocks(reference(), block + static_cast<uint64_t>(quick), whole - quick, y + done + 4 * quick);
  const int64_t rest = (n - done) % 4;
  if (rest > 0) {
    blocks(reference(), block + static_cast<uint64_t>(whole), int64_t{1}, part.data());
    std::copy_n(part.data(), rest, y + done + 4 * whole);
  }
}

// The same over the threads. A task but the first starts at a block.
template <typename T, typename Blocks>
void draw_all(Context& context, uint64_t first, std::span<T> y, const Blocks& blocks) noexcept {
  const auto n = static_cast<int64_t>(y.size());
  if (n <= kTaskElements) {
    if (n > 0) draw(first, y.data(), n, blocks);
    return;
  }
  const auto shift = static_cast<int64_t>(first % 4);
  context.pool().parallel((n + shift + kTaskElements - 1) / kTaskElements, [&](int64_t task, int) {
    const int64_t begin = std::max<int64_t>(0, task * kTaskElements - shift);
    const int64_t end = std::min(n, (task + 1) * kTaskElements - shift);
    draw(first + static_cast<uint64_t>(begin), y.data() + begin, end - begin, blocks);
  });
}

// From here on an output is taken to leave the cache.
constexpr size_t kStreamElements = size_t{4} << 20;

}  // namespace

void prng_philox(Context& context, uint64_t seed, uint64_t stream, uint64_t first, std::span<uint32_t> y) noexcept {
  draw_all(context, first, y, [&](const PrngTable& t, uint64_t block, int64_t blocks, uint32_t* at) {
    return t.words({seed, stream}, block, blocks, at, y.size() >= kStreamElements);
  });
}

void prng_philox(Context& context, View<const uint32_t, 2> ctr, View<const uint32_t, 2> key,
                 View<uint32_t, 2> y) noexcept {
  assert(ctr.extent(0) == key.extent(0) && ctr.extent(0) == y.extent(0));
  for_row_ranges(context, ctr.extent(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t *c = ctr.row(i), *k = key.row(i);
      const auto words = philox4x32({k[0], k[1]}, {c[0], c[1], c[2], c[3]});
      std::copy(words.begin(), words.end(), y.row(i));
    }
  });
}

void prng_uniform_f32(Context& context, uint64_t seed, uint64_t stream, uint64_t first, std::span<float> y) noexcept {
  draw_all(context, first, y, [&](const PrngTable& t, uint64_t block, int64_t blocks, float* at) {
    return t.uniform({seed, stream}, block, blocks, at, y.size() >= kStreamElements);
  });
}

void prng_normal_f32(Context& context, uint64_t seed, uint64_t stream, uint64_t first, std::span<float> y) noexcept {
  assert(first % 2 == 0);
  draw_all(context, first, y, [&](const PrngTable& t, uint64_t block, int64_t blocks, float* at) {
    return t.normal({seed, stream}, block, blocks, at, y.size() >= kStreamElements);
  });
}

void prng_dropout_mask(Context& context, uint64_t seed, uint64_t stream, uint64_t first, double keep_prob,
                       std::span<uint8_t> mask) noexcept {
  // k 2^-24 < keep_prob as integers: k < ceil(keep_prob 2^24).
  const double scaled = std::ceil(static_cast<double>(static_cast<float>(keep_prob)) * 0x1p24);
  const uint32_t limit = !(scaled > 0) ? 0 : scaled >= 0x1p24 ? 1u << 24 : static_cast<uint32_t>(scaled);
  draw_all(context, first, mask, [&](const PrngTable& t, uint64_t block, int64_t blocks, uint8_t* at) {
    return t.mask({seed, stream}, block, blocks, limit, at);
  });
}

}  // namespace graft
