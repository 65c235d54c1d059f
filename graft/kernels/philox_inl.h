// Philox4x32-10 (graft/base/random.h) over the blocks of a stream, one block per lane of u64. Include after hwy/highway.h; compiled once
// per target.

#if defined(GRAFT_KERNELS_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_PHILOX_INL_H_
#undef GRAFT_KERNELS_PHILOX_INL_H_
#else
#define GRAFT_KERNELS_PHILOX_INL_H_
#endif

#include "graft/kernels/prng_table.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using PairTag = hn::CappedTag<uint64_t, 8>;          // a block per lane
using WordTag = hn::Repartition<uint32_t, PairTag>;  // 32-bit words of the same vector
constexpr int64_t kPhiloxLanes = static_cast<int64_t>(hn::MaxLanes(PairTag()));

// What all blocks of a stream share.
class PhiloxLanes {
 public:
  explicit PhiloxLanes(PhiloxStream s) : stream_(s.stream) {
    auto low = static_cast<uint32_t>(s.seed), high = static_cast<uint32_t>(s.seed >> 32);
    for (int r = 0; r < 10; ++r, low += 0x9E3779B9u, high += 0xBB67AE85u) {
      low_[r] = low;
      high_[r] = high;
    }
    // Lane 2i is block i and lane 2i + 1 block kPhiloxLanes / 2 + i, so that pairs of words interleave into their order.
    for (int64_t i = 0; i < kPhiloxLanes / 2; ++i) {
      offset_[2 * i] = static_cast<uint64_t>(i);
      offset_[2 * i + 1] = static_cast<uint64_t>(kPhiloxLanes / 2 + i);
    }
  }

  // Blocks of a group: lane l of c_j holds word j of its block in the low half; the high half is not defined.
  struct Group {
    hn::Vec<PairTag> c0, c1, c2, c3;
  };
  HWY_INLINE Group start(uint64_t block) const {
    const PairTag d;
    const auto b = hn::Add(hn::Set(d, block), hn::Load(d, offset_));
    const auto s = hn::Set(d, stream_);
    return {b, hn::ShiftRight<32>(b), s, hn::ShiftRight<32>(s)};
  }
  // All ten rounds of some groups, which hide each other's latency.
  template <class... Groups>
  HWY_INLINE void run(Groups&... groups) const {
    const PairTag d;
    const WordTag dw;
    const auto m0 = hn::BitCast(dw, hn::Set(d, uint64_t{0xD2511F53u}));
    const auto m1 = hn::BitCast(dw, hn::Set(d, uint64_t{0xCD9E8D57u}));
    const auto round = [&](Group& g, auto k0, auto k1) HWY_ATTR {
      // The product reads the low halves alone, so what stands in the high ones does not matter.
      const auto a = hn::MulEven(hn::BitCast(dw, g.c0), m0), b = hn::MulEven(hn::BitCast(dw, g.c2), m1);
      g = {hn::Xor3(hn::ShiftRight<32>(b), g.c1, k0), b, hn::Xor3(hn::ShiftRight<32>(a), g.c3, k1), a};
    };
    for (int r = 0; r < 10; ++r) {
      const auto k0 = hn::Set(d, low_[r]), k1 = hn::Set(d, high_[r]);
      (round(groups, k0, k1), ...);
    }
  }

  // use(i, words) for the words of `blocks` blocks from `block` on, in order, a vector at a time; i counts words. Returns the blocks
  // done: whole groups.
  template <class Use>
  HWY_INLINE int64_t words(uint64_t block, int64_t blocks, const Use& use) const {
    return groups(block, blocks, [&](int64_t at, auto w0, auto w1, auto w2, auto w3) HWY_ATTR {
      const PairTag d;
      const auto first = pair(w0, w1), second = pair(w2, w3);
      use(4 * at, hn::BitCast(WordTag(), hn::InterleaveLower(d, first, second)));
      use(4 * at + 2 * kPhiloxLanes, hn::BitCast(WordTag(), hn::InterleaveUpper(d, first, second)));
    });
  }

  // use(at, c0, c1, c2, c3): the same with a group's lanes as they are; `at` counts blocks.
  template <class Use>
  HWY_INLINE int64_t groups(uint64_t block, int64_t blocks, const Use& use) const {
    constexpr int64_t kStep = kPhiloxLanes;
    const auto give = [&](int64_t at, const Group& g) HWY_ATTR { use(at, g.c0, g.c1, g.c2, g.c3); };
    int64_t b = 0;
    for (; b + 3 * kStep <= blocks; b += 3 * kStep) {
      Group x = start(block + static_cast<uint64_t>(b)), y = start(block + static_cast<uint64_t>(b + kStep)),
            z = start(block + static_cast<uint64_t>(b + 2 * kStep));
      run(x, y, z);
      give(b, x);
      give(b + kStep, y);
      give(b + 2 * kStep, z);
    }
    for (; b + kStep <= blocks; b += kStep) {
      Group x = start(block + static_cast<uint64_t>(b));
      run(x);
      give(b, x);
    }
    return b;
  }

  // Low halves of both: low below, high above.
  template <class V>
  static HWY_INLINE V pair(V low, V high) {
    const WordTag dw;
    return hn::BitCast(PairTag(), hn::OddEven(hn::BitCast(dw, hn::ShiftLeft<32>(high)), hn::BitCast(dw, low)));
  }

 private:
  HWY_ALIGN uint64_t offset_[kPhiloxLanes];
  uint64_t low_[10], high_[10];
  uint64_t stream_;
};

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
