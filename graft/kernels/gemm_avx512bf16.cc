// bf16 dot products by vdpbf16ps. Register tile 6 x 64: 24 sums, 4 vectors of W, 1 broadcast of x, of 32 registers.

#if !defined( \
    __clang__)  // GCC 12 sees its own _mm512_undefined values in the intrinsics as uninitialised (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "graft/base/float16.h"
#include "graft/kernels/gemm_table.h"

namespace graft {
namespace {

constexpr int kTileRows = 6;
constexpr int64_t kPrefetchPairs = 8;  // steps ahead that W is asked for

template <int kRows, int kVectors>
void micro(const uint32_t* __restrict__ a, int64_t a_stride, const uint32_t* __restrict__ b, int64_t num_pairs,
           float* __restrict__ c, int64_t c_stride, bool resume) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[m][v] = resume ? _mm512_loadu_ps(c + m * c_stride + 16 * v) : _mm512_setzero_ps();
    }
  }
  const uint32_t* a3 = a + 3 * a_stride;  // two bases, so that the addresses of six rows fit the registers
  for (int64_t p = 0; p < num_pairs; ++p) {
    __m512bh w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      w[v] = (__m512bh)_mm512_loadu_si512(b + 16 * v);
      _mm_prefetch(reinterpret_cast<const char*>(b + kPrefetchPairs * 64 + 16 * v), _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const uint32_t pair = m < 3 ? a[m * a_stride] : a3[(m - 3) * a_stride];
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[m][v] = _mm512_dpbf16_ps(sum[m][v], x, w[v]);
    }
    ++a;
    ++a3;
    b += 64;
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(c + m * c_stride + 16 * v, sum[m][v]);
  }
}

template <int kVectors>
void tile_of(int rows, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t num_pairs, float* c,
             int64_t c_stride, bool resume) {
  switch (rows) {
    case 1: return micro<1, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
    case 2: return micro<2, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
    case 3: return micro<3, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
    case 4: return micro<4, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
    case 5: return micro<5, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
    default: return micro<6, kVectors>(a, a_stride, b, num_pairs, c, c_stride, resume);
  }
}

void tile(int rows, int lanes, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t num_pairs, float* c,
          int64_t c_stride, bool resume) noexcept {
  if (lanes > 48) return tile_of<4>(rows, a, a_stride, b, num_pairs, c, c_stride, resume);
  if (lanes > 16) return tile_of<3>(rows, a, a_stride, b, num_pairs, c, c_stride, resume);
  tile_of<1>(rows, a, a_stride, b, num_pairs, c, c_stride, resume);
}

// Few rows read several panels at once: enough chains, and more streams from memory.
template <int kRows, int kPanels>
void micro_panels(const uint32_t* __restrict__ a, int64_t a_stride, const uint32_t* __restrict__ b,
                  int64_t panel_stride, int64_t num_pairs, float* __restrict__ c) {
  __m512 sum[kRows][kPanels][4];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sum[m][p][v] = _mm512_setzero_ps();
    }
  }
  for (int64_t i = 0; i < num_pairs; ++i, b += 64) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const __m512bh w = (__m512bh)_mm512_loadu_si512(b + p * panel_stride + 16 * v);
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) {
          const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[m * a_stride + i]));
          sum[m][p][v] = _mm512_dpbf16_ps(sum[m][p][v], x, w);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) _mm512_storeu_ps(c + (m * kPanels + p) * 64 + 16 * v, sum[m][p][v]);
    }
  }
}

int panels_at_once(int rows) noexcept { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

void panels(int rows, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t panel_stride, int64_t num_pairs,
            float* c) noexcept {
  switch (rows) {
    case 1: return micro_panels<1, 4>(a, a_stride, b, panel_stride, num_pairs, c);
    case 2: return micro_panels<2, 2>(a, a_stride, b, panel_stride, num_pairs, c);
    default: return micro_panels<3, 2>(a, a_stride, b, panel_stride, num_pairs, c);
  }
}

void round_row(const float* x, int64_t n, uint16_t* out) noexcept {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
  }
  if (i < n) {
    const auto mask = static_cast<__mmask16>((1u << (n - i)) - 1);
    _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i)));
  }
}

// Rows of 16 values, a in the low and b in the high half of each result.
inline __m512i interleave(__m512 a, __m512 b) {
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a)),
                high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

void round_block(const float* block, int64_t n, uint32_t* out) noexcept {
  for (int64_t k = 0; k < n; k += 2, block += 128, out += 64) {
    for (int v = 0; v < 4; ++v) {
      const __m512 high = k + 1 < n ? _mm512_loadu_ps(block + 64 + 16 * v) : _mm512_setzero_ps();
      _mm512_storeu_si512(out + 16 * v, interleave(_mm512_loadu_ps(block + 16 * v), high));
    }
  }
}

// Columns of eight 64-bit entries become rows.
inline void transpose8(__m512i r[8]) {
  __m512i t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // 128-bit parts: 0 and 2 of two vectors, then 1 and 3
    const __m512i even_low = _mm512_shuffle_i64x2(t[i], t[i + 2], 0x88),
                  odd_low = _mm512_shuffle_i64x2(t[i], t[i + 2], 0xDD);
    const __m512i even_high = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0x88),
                  odd_high = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0xDD);
    r[i] = _mm512_shuffle_i64x2(even_low, even_high, 0x88);
    r[i + 4] = _mm512_shuffle_i64x2(even_low, even_high, 0xDD);
    r[i + 2] = _mm512_shuffle_i64x2(odd_low, odd_high, 0x88);
    r[i + 6] = _mm512_shuffle_i64x2(odd_low, odd_high, 0xDD);
  }
}

// In 16 rows of W at a pair of columns, neighbouring rows meet by one byte shuffle: (row 2i: k, k+1), (row 2i+1: k,
// k+1) becomes (k: both rows), (k+1: both rows), a 64-bit entry; eight pairs of columns are then transposed.
void transpose(const uint32_t* pairs, int64_t n, int64_t num_pairs, uint32_t* out) noexcept {
  const __m512i swap = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int64_t row = 0; row < n; row += 16) {
    // Rows from n on are zeros in memory, or belong to the panel's rows beyond the matrix, zero too.
    const int64_t count = (n - row + 1) / 2 < 8 ? (n - row + 1) / 2 : 8;
    for (int64_t p = 0; p < num_pairs; p += 8) {
      __m512i r[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        r[i] = p + i < num_pairs ? _mm512_shuffle_epi8(_mm512_loadu_si512(pairs + (p + i) * 64 + row), swap)
                                 : _mm512_setzero_si512();
      }
      transpose8(r);
      if (count == 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) _mm512_storeu_si512(out + (row / 2 + i) * 64 + 2 * p, r[i]);
      } else {
        for (int64_t i = 0; i < count; ++i) _mm512_storeu_si512(out + (row / 2 + i) * 64 + 2 * p, r[i]);
      }
    }
  }
}

constexpr DotTable kTable = {tile, panels, panels_at_once, round_row, transpose, round_block, kTileRows, 1};

}  // namespace

const DotTable* gemm_avx512bf16() noexcept { return &kTable; }

}  // namespace graft
