#include <immintrin.h>

#include "graft/bench/machine_table.h"

namespace graft {
namespace {

float dot(int64_t rounds) noexcept {
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3F803F80), y = (__m512bh)_mm512_set1_epi32(0x0D800D80);
  __m512 sum[24];
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) {
    sum[i] = _mm512_set1_ps(static_cast<float>(i));  // different: equal chains would be merged
  }
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) sum[j] = _mm512_dpbf16_ps(sum[j], x, y);
  }
  __m512 total = sum[0];
#pragma GCC unroll 24
  for (int i = 1; i < 24; ++i) total = _mm512_add_ps(total, sum[i]);
  return _mm512_cvtss_f32(total);
}

}  // namespace

float (*machine_bf16_dot() noexcept)(int64_t) noexcept { return dot; }

}  // namespace graft
