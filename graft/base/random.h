#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace graft {

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a function from (key, counter) to four
// words, so that every draw is named by what it is for and never depends on order, batch or threads.
inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// FNV-1a, 64 bits: names a random stream after a tensor or a site.
inline uint64_t stream_hash(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

// A stream of draws: keyed by (seed, stream); `index` names the draw, `update` the optimizer update (0 for what happens once).
// The key mixes seed and stream through one Philox block, so that close seeds share nothing.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t stream) {
    const auto mixed =
        philox4x32({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                   {static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32), 0x67726166u, 0x74u});
    key_ = {mixed[0], mixed[1]};
  }
  const std::array<uint32_t, 2>& key() const { return key_; }
  std::array<uint32_t, 4> block(uint64_t index, uint64_t update = 0) const {
    return philox4x32(key_, {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                             static_cast<uint32_t>(update), static_cast<uint32_t>(update >> 32)});
  }
  uint32_t word(uint64_t index, uint64_t update = 0) const { return block(index >> 2, update)[index & 3]; }
  // Uniform in [0, 1) with 24 bits (float-exact), and in [0, 1) with 53 bits.
  float uniform(uint64_t index, uint64_t update = 0) const {
    return static_cast<float>(word(index, update) >> 8) * 0x1p-24f;
  }
  double uniform53(uint64_t index, uint64_t update = 0) const {
    const auto b = block(index, update);
    return static_cast<double>(((uint64_t{b[0]} << 32) | b[1]) >> 11) * 0x1p-53;
  }

 private:
  std::array<uint32_t, 2> key_{};
};

}  // namespace graft
