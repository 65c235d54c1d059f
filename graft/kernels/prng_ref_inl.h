#pragma once

// The scalar reference of prng.h. Compiled twice (ref.h).

#include <algorithm>
#include <array>

#include "graft/base/random.h"
#include "graft/kernels/math_ref_inl.h"
#include "graft/kernels/prng_table.h"

namespace graft {
namespace {

std::array<uint32_t, 4> block_words(PhiloxStream s, uint64_t block) noexcept {
  return philox4x32({static_cast<uint32_t>(s.seed), static_cast<uint32_t>(s.seed >> 32)},
                    {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(s.stream),
                     static_cast<uint32_t>(s.stream >> 32)});
}

int64_t words(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t* y, bool /*past*/) noexcept {
  for (int64_t b = 0; b < blocks; ++b) {
    const auto w = block_words(s, block + static_cast<uint64_t>(b));
    std::copy(w.begin(), w.end(), y + 4 * b);
  }
  return blocks;
}

int64_t uniform(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool /*past*/) noexcept {
  for (int64_t b = 0; b < blocks; ++b) {
    const auto w = block_words(s, block + static_cast<uint64_t>(b));
    for (size_t j = 0; j < 4; ++j) y[4 * b + static_cast<int64_t>(j)] = static_cast<float>(w[j] >> 8) * 0x1p-24f;
  }
  return blocks;
}

int64_t normal(PhiloxStream s, uint64_t block, int64_t blocks, float* y, bool /*past*/) noexcept {
  for (int64_t b = 0; b < blocks; ++b) {
    const auto w = block_words(s, block + static_cast<uint64_t>(b));
    for (size_t j = 0; j < 4; j += 2) {
      const float u = static_cast<float>((w[j] >> 8) + 1) * 0x1p-24f;
      const float radius = sqrt_chain(-2.0f * log_chain(u));
      float sine, cosine;
      sincos_turns_chain(w[j + 1] & 0xFFFFFF00u, &sine, &cosine);
      y[4 * b + static_cast<int64_t>(j)] = radius * cosine;
      y[4 * b + static_cast<int64_t>(j) + 1] = radius * sine;
    }
  }
  return blocks;
}

int64_t mask(PhiloxStream s, uint64_t block, int64_t blocks, uint32_t limit, uint8_t* y) noexcept {
  for (int64_t b = 0; b < blocks; ++b) {
    const auto w = block_words(s, block + static_cast<uint64_t>(b));
    for (size_t j = 0; j < 4; ++j) y[4 * b + static_cast<int64_t>(j)] = (w[j] >> 8) < limit ? 1 : 0;
  }
  return blocks;
}

constexpr PrngTable kTable = {words, uniform, normal, mask};

}  // namespace
}  // namespace graft
