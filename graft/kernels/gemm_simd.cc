#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/gemm_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/gemm_transpose_inl.h"
// clang-format on

#include "graft/base/float16.h"
#include "graft/kernels/gemm_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

const hn::ScalableTag<float> df;
const hn::ScalableTag<uint32_t> du;
using VF = hn::Vec<decltype(df)>;
constexpr int kLanes = HWY_MAX_BYTES / 4;
constexpr bool kManyRegisters = HWY_MAX_BYTES == 64 || HWY_TARGET == HWY_NEON;  // 32 of them, else 16
constexpr int kMaxRows = kManyRegisters ? 12 : 6;
constexpr int kColumnVectors = 2;  // register tile: kMaxRows x 2 vectors

// Entry (m, k) of a: rows apart by `stride`, or (transposed) summed entries apart by `stride`.
template <bool kTransposed>
HWY_INLINE const float* entry(const float* a, int64_t stride, int m) {
  return kTransposed ? a + m : a + m * stride;
}

// kSize lanes of a vector: all of them, or 8 of 16, of which AVX-512 multiplies two vectors in the time of a whole one.
template <int kSize, int kRows, int kVectors, bool kTransposed>
void micro(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT b, int64_t b_stride, int64_t n,
           float* HWY_RESTRICT c, int64_t c_stride, GemmSums sums) {
  const hn::CappedTag<float, kSize> d;
  using V = hn::Vec<decltype(d)>;
  V sum[kRows][kVectors];
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sum[m][v] = sums == GemmSums::kResume ? hn::LoadU(d, c + m * c_stride + v * kSize) : hn::Zero(d);
    }
  }
  // Four rows share a base pointer, so that all addresses fit the registers.
  const float* base0 = a;
  const float* base1 = kTransposed ? a : a + 4 * a_stride;
  const float* base2 = kTransposed ? a : a + 8 * a_stride;
  const int64_t step = kTransposed ? a_stride : 1, stride3 = 3 * a_stride;
  for (int64_t k = 0; k < n; ++k) {
    V w[kVectors];
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = hn::LoadU(d, b + v * kSize);
    GRAFT_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const float* base = m < 4 ? base0 : m < 8 ? base1 : base2;
      const float value = kTransposed ? base0[m] : m % 4 == 3 ? base[stride3] : base[m % 4 * a_stride];
      const V x = hn::Set(d, value);
      GRAFT_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::MulAdd(x, w[v], sum[m][v]);
    }
    base0 += step;
    if (!kTransposed) {
      base1 += step;
      base2 += step;
    }
    b += b_stride;
  }
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + m * c_stride + v * kSize;
      hn::StoreU(sums == GemmSums::kAdd ? hn::Add(hn::LoadU(d, to), sum[m][v]) : sum[m][v], d, to);
    }
  }
}

template <int kSize, bool kTransposed, int kVectors>
void micro_rows(int rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, float* c,
                int64_t c_stride, GemmSums sums) {
#define GRAFT_ROWS(r)                                                                         \
  case r:                                                                                     \
    if constexpr (r <= kMaxRows)                                                              \
      micro<kSize, r, kVectors, kTransposed>(a, a_stride, b, b_stride, n, c, c_stride, sums); \
    return;
  switch (rows) {
    GRAFT_ROWS(1)
    GRAFT_ROWS(2)
    GRAFT_ROWS(3)
    GRAFT_ROWS(4)
    GRAFT_ROWS(5)
    GRAFT_ROWS(6)
    GRAFT_ROWS(7)
    GRAFT_ROWS(8)
    GRAFT_ROWS(9)
    GRAFT_ROWS(10)
    GRAFT_ROWS(11)
    GRAFT_ROWS(12)
  }
#undef GRAFT_ROWS
}

constexpr int kWideVectors = 32 / kLanes, kWideRows = 3;

template <bool kTransposed>
void wide_rows(int rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, float* c,
               int64_t c_stride, GemmSums sums) {
  switch (rows) {
    case 1: return micro<kLanes, 1, kWideVectors, kTransposed>(a, a_stride, b, b_stride, n, c, c_stride, sums);
    case 2: return micro<kLanes, 2, kWideVectors, kTransposed>(a, a_stride, b, b_stride, n, c, c_stride, sums);
    default: return micro<kLanes, 3, kWideVectors, kTransposed>(a, a_stride, b, b_stride, n, c, c_stride, sums);
  }
}

template <bool kTransposed>
void any_tile(int rows, int lanes, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n,
              float* c, int64_t c_stride, GemmSums sums) noexcept {
  while (rows > 0) {
    const int now = rows <= kMaxRows ? rows : (rows + 1) / 2;  // 12 rows: 6 and 6; 7 rows: 4 and 3
    int j = 0;
    if constexpr (kWideVectors > kColumnVectors) {  // few rows: more columns instead, to have enough chains
      if (now <= kWideRows && lanes == 32) {
        wide_rows<kTransposed>(now, a, a_stride, b, b_stride, n, c, c_stride, sums);
        j = lanes;
      }
    }
    for (; j + kColumnVectors * kLanes <= lanes; j += kColumnVectors * kLanes) {
      micro_rows<kLanes, kTransposed, kColumnVectors>(now, a, a_stride, b + j, b_stride, n, c + j, c_stride, sums);
    }
    for (; j + kLanes <= lanes; j += kLanes) {
      micro_rows<kLanes, kTransposed, 1>(now, a, a_stride, b + j, b_stride, n, c + j, c_stride, sums);
    }
    if constexpr (kLanes > 8) {
      if (j < lanes) micro_rows<8, kTransposed, 1>(now, a, a_stride, b + j, b_stride, n, c + j, c_stride, sums);
    }
    rows -= now;
    a = entry<kTransposed>(a, a_stride, now);
    c += now * c_stride;
  }
}

void tile(int rows, int lanes, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, float* c,
          int64_t c_stride, GemmSums sums) noexcept {
  any_tile<false>(rows, lanes, a, a_stride, b, b_stride, n, c, c_stride, sums);
}

void tile_transposed(int rows, int lanes, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n,
                     float* c, int64_t c_stride, GemmSums sums) noexcept {
  any_tile<true>(rows, lanes, a, a_stride, b, b_stride, n, c, c_stride, sums);
}

// ----------------------------------------------------------------------------------------------------------------
// 16-bit pairs

using VU = hn::Vec<decltype(du)>;

// f32 of an f16 that stands in the low half: exact for every half, subnormals included, on every target.
HWY_INLINE VF widen_f16(VU half) {
  const VU magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFF)));
  const VU sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000)));
  const VU scaled = hn::BitCast(du, hn::Mul(hn::BitCast(df, magnitude), hn::Set(df, 0x1p112f)));
  const auto special = hn::Ge(hn::BitCast(df, magnitude), hn::BitCast(df, hn::Set(du, 0x0F800000)));
  return hn::BitCast(
      df,
      hn::Or(hn::IfThenElse(hn::RebindMask(du, special), hn::Or(magnitude, hn::Set(du, 0x7F800000)), scaled), sign));
}

template <bool kBf16>
HWY_INLINE VF widen_low(VU pair) {
  if constexpr (kBf16) return hn::BitCast(df, hn::ShiftLeft<16>(pair));
  return widen_f16(hn::And(pair, hn::Set(du, 0xFFFF)));
}
template <bool kBf16>
HWY_INLINE VF widen_high(VU pair) {
  if constexpr (kBf16) return hn::BitCast(df, hn::And(pair, hn::Set(du, 0xFFFF0000u)));
  return widen_f16(hn::ShiftRight<16>(pair));
}

// How many vectors of one panel's 64 lanes a pass holds, for a number of rows, and how many panels beside each other.
constexpr int kBudget = kManyRegisters ? 24 : 12;
constexpr int vectors_for(int rows) {
  int v = 64 / kLanes;
  while (v > 1 && rows * v > (rows == 1 && !kManyRegisters ? 8 : kBudget)) v /= 2;
  return v;
}
constexpr int panels_for(int rows) {
  const int v = vectors_for(rows);
  if (v * kLanes < 64) return 1;
  const int p = kBudget / (rows * v);
  return p >= 4 ? 4 : p >= 2 ? 2 : 1;
}

constexpr int64_t kPrefetchPairs = 16;

template <int kRows, int kPanels, bool kBf16>
void micro_panels(const float* HWY_RESTRICT a, int64_t a_stride, const uint32_t* HWY_RESTRICT pairs,
                  int64_t panel_stride, int64_t n, float* HWY_RESTRICT c, bool add) {
  constexpr int kVectors = vectors_for(kRows);
  constexpr int64_t kStride = kPanels * 64;
  for (int lane = 0; lane < 64; lane += kVectors * kLanes) {
    VF sum[kRows][kPanels][kVectors];
    GRAFT_UNROLL
    for (int m = 0; m < kRows; ++m) {
      GRAFT_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        GRAFT_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[m][p][v] = hn::Zero(df);
      }
    }
    const uint32_t* HWY_RESTRICT from = pairs + lane;
    int64_t k = 0;
    for (; k + 2 <= n; k += 2, from += 64) {
      if (kVectors * kLanes < 64 && lane == 0) {  // this pass reads a part of each line group: ask for all of it
        for (int64_t j = 0; j < 64; j += 16) __builtin_prefetch(from + kPrefetchPairs * 64 + j);
      }
      GRAFT_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        GRAFT_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const VU pair = hn::LoadU(du, from + p * panel_stride + v * kLanes);
          const VF low = widen_low<kBf16>(pair), high = widen_high<kBf16>(pair);
          GRAFT_UNROLL
          for (int m = 0; m < kRows; ++m) {
            sum[m][p][v] = hn::MulAdd(hn::Set(df, a[m * a_stride + k]), low, sum[m][p][v]);
            sum[m][p][v] = hn::MulAdd(hn::Set(df, a[m * a_stride + k + 1]), high, sum[m][p][v]);
          }
        }
      }
    }
    if (k < n) {
      GRAFT_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        GRAFT_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const VF low = widen_low<kBf16>(hn::LoadU(du, from + p * panel_stride + v * kLanes));
          GRAFT_UNROLL
          for (int m = 0; m < kRows; ++m) {
            sum[m][p][v] = hn::MulAdd(hn::Set(df, a[m * a_stride + k]), low, sum[m][p][v]);
          }
        }
      }
    }
    GRAFT_UNROLL
    for (int m = 0; m < kRows; ++m) {
      GRAFT_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        GRAFT_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          float* to = c + m * kStride + p * 64 + lane + v * kLanes;
          hn::StoreU(add ? hn::Add(hn::LoadU(df, to), sum[m][p][v]) : sum[m][p][v], df, to);
        }
      }
    }
  }
}

template <int kRows, bool kBf16>
void panels_rows(int panels, const float* a, int64_t a_stride, const uint32_t* pairs, int64_t panel_stride, int64_t n,
                 float* c, bool add) {
  constexpr int kPanels = panels_for(kRows);
  if (kPanels > 1 && panels == kPanels) {
    micro_panels<kRows, kPanels, kBf16>(a, a_stride, pairs, panel_stride, n, c, add);
    return;
  }
  micro_panels<kRows, 1, kBf16>(a, a_stride, pairs, panel_stride, n, c,
                                add);  // the driver asks for panels_at_once or for 1
}

template <bool kBf16>
void panels_type(int rows, int panels, const float* a, int64_t a_stride, const uint32_t* pairs, int64_t panel_stride,
                 int64_t n, float* c, bool add) {
#define GRAFT_ROWS(r)                                                                                        \
  case r:                                                                                                    \
    if constexpr (r <= kMaxRows) panels_rows<r, kBf16>(panels, a, a_stride, pairs, panel_stride, n, c, add); \
    return;
  if (rows > kMaxRows) {
    const int half = (rows + 1) / 2;
    panels_type<kBf16>(half, panels, a, a_stride, pairs, panel_stride, n, c, add);
    panels_type<kBf16>(rows - half, panels, a + half * a_stride, a_stride, pairs, panel_stride, n,
                       c + half * panels * 64, add);
    return;
  }
  switch (rows) {
    GRAFT_ROWS(1)
    GRAFT_ROWS(2)
    GRAFT_ROWS(3)
    GRAFT_ROWS(4)
    GRAFT_ROWS(5)
    GRAFT_ROWS(6)
    GRAFT_ROWS(7)
    GRAFT_ROWS(8)
    GRAFT_ROWS(9)
    GRAFT_ROWS(10)
    GRAFT_ROWS(11)
    GRAFT_ROWS(12)
  }
#undef GRAFT_ROWS
}

void panels(int rows, int num_panels, bool is_bf16, const float* a, int64_t a_stride, const uint32_t* pairs,
            int64_t panel_stride, int64_t n, float* c, bool add) noexcept {
  if (is_bf16) {
    panels_type<true>(rows, num_panels, a, a_stride, pairs, panel_stride, n, c, add);
  } else {
    panels_type<false>(rows, num_panels, a, a_stride, pairs, panel_stride, n, c, add);
  }
}

int panels_at_once(int rows) noexcept { return rows > kMaxRows ? 1 : panels_for(rows); }

// The same for f32 panels of 32 outputs.
template <int kRows, int kPanels>
void micro_panels_f32(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT w, int64_t panel_stride,
                      int64_t n, float* HWY_RESTRICT c, bool add) {
  constexpr int kVectors = 32 / kLanes;
  VF sum[kRows][kPanels][kVectors];
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      GRAFT_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m][p][v] = hn::Zero(df);
    }
  }
  for (int64_t k = 0; k < n; ++k, w += 32) {
    GRAFT_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      GRAFT_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const VF value = hn::LoadU(df, w + p * panel_stride + v * kLanes);
        GRAFT_UNROLL
        for (int m = 0; m < kRows; ++m) {
          sum[m][p][v] = hn::MulAdd(hn::Set(df, a[m * a_stride + k]), value, sum[m][p][v]);
        }
      }
    }
  }
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      GRAFT_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        float* to = c + (m * kPanels + p) * 32 + v * kLanes;
        hn::StoreU(add ? hn::Add(hn::LoadU(df, to), sum[m][p][v]) : sum[m][p][v], df, to);
      }
    }
  }
}

constexpr int f32_panels_for(int rows) {
  const int p = kBudget / (rows * (32 / kLanes));
  return p >= 8 ? 8 : p >= 4 ? 4 : p >= 2 ? 2 : 0;
}

int panels_f32_at_once(int rows) noexcept { return f32_panels_for(rows); }

template <int kRows>
void panels_f32_rows(int num_panels, const float* a, int64_t a_stride, const float* w, int64_t panel_stride, int64_t n,
                     float* c, bool add) {
  constexpr int kPanels = f32_panels_for(kRows);
  if constexpr (kPanels > 2) {
    if (num_panels == kPanels) return micro_panels_f32<kRows, kPanels>(a, a_stride, w, panel_stride, n, c, add);
  }
  if constexpr (kPanels >= 2) micro_panels_f32<kRows, 2>(a, a_stride, w, panel_stride, n, c, add);
}

void panels_f32(int rows, int num_panels, const float* a, int64_t a_stride, const float* w, int64_t panel_stride,
                int64_t n, float* c, bool add) noexcept {
  switch (rows) {  // rows for which panels_f32_at_once is not 0
    case 1: return panels_f32_rows<1>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    case 2: return panels_f32_rows<2>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    case 3: return panels_f32_rows<3>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    case 4: return panels_f32_rows<4>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    case 5: return panels_f32_rows<5>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    case 6: return panels_f32_rows<6>(num_panels, a, a_stride, w, panel_stride, n, c, add);
    default: return;
  }
}

template <bool kBf16>
void widen_type(const uint32_t* HWY_RESTRICT pairs, int64_t n, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < n; k += 2, pairs += 64, out += 128) {
    for (int j = 0; j < 64; j += kLanes) {
      const VU pair = hn::LoadU(du, pairs + j);
      hn::StoreU(widen_low<kBf16>(pair), df, out + j);
      if (k + 1 < n) hn::StoreU(widen_high<kBf16>(pair), df, out + 64 + j);
    }
  }
}

void widen(bool is_bf16, const uint32_t* pairs, int64_t n, float* out) noexcept {
  is_bf16 ? widen_type<true>(pairs, n, out) : widen_type<false>(pairs, n, out);
}

// To nearest even; NaN stays NaN (float16.h).
void round_bf16(const float* HWY_RESTRICT x, int64_t n, uint16_t* HWY_RESTRICT out) noexcept {
  const hn::Rebind<uint16_t, decltype(du)> dh;
  const hn::RebindToSigned<decltype(du)> di;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VF value = hn::LoadU(df, x + i);
    const VU bits = hn::BitCast(du, value);
    const VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const VU rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd));
    const VU nan = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));
    const VU result = hn::IfThenElse(hn::RebindMask(du, hn::Eq(value, value)), rounded, nan);
    hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, result)), dh, out + i);
  }
  for (; i < n; ++i) out[i] = to_bf16(x[i]).bits;
}

// ---------------------------------------------------------------------------------------------------------------------
// epilogue

template <int kSize>
HWY_INLINE void finish_at(const float* c, float scale, const float* bias, const float* residual, float* y) {
  const hn::CappedTag<float, kSize> d;
  auto value = hn::LoadU(d, c);
  if (scale != 1.0f) value = hn::Mul(value, hn::Set(d, scale));
  if (bias != nullptr) value = hn::Add(value, hn::LoadU(d, bias));
  if (residual != nullptr) value = hn::Add(value, hn::LoadU(d, residual));
  hn::StoreU(value, d, y);
}

void finish(const float* c, int64_t c_stride, int64_t rows, int64_t n, float scale, const float* bias,
            const float* residual, int64_t residual_stride, float* y, int64_t y_stride) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) {
      finish_at<kLanes>(c + j, scale, bias == nullptr ? nullptr : bias + j,
                        residual == nullptr ? nullptr : residual + j, y + j);
    }
    if constexpr (kLanes > 4) {  // an adapter's rank is often 8
      for (; j + 4 <= n; j += 4) {
        finish_at<4>(c + j, scale, bias == nullptr ? nullptr : bias + j, residual == nullptr ? nullptr : residual + j,
                     y + j);
      }
    }
    for (; j < n; ++j) {
      finish_at<1>(c + j, scale, bias == nullptr ? nullptr : bias + j, residual == nullptr ? nullptr : residual + j,
                   y + j);
    }
    c += c_stride;
    y += y_stride;
    if (residual != nullptr) residual += residual_stride;
  }
}

// One vector of dora_block.
template <int kSize>
HWY_INLINE void dora_at(const float* w, const float* update, float scaling, float* squares, float* merged) {
  const hn::CappedTag<float, kSize> d;
  auto value = hn::LoadU(d, w);
  if (update != nullptr) value = hn::Add(value, hn::Mul(hn::Set(d, scaling), hn::LoadU(d, update)));
  hn::StoreU(hn::MulAdd(value, value, hn::LoadU(d, squares)), d, squares);
  if (merged != nullptr) hn::StoreU(value, d, merged);
}

void dora_block(const float* w, const float* update, int64_t rows, int64_t n, float scaling, float* squares,
                float* merged, int64_t merged_stride) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    const float* u = update == nullptr ? nullptr : update + i * 64;
    float* to = merged == nullptr ? nullptr : merged + i * merged_stride;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) {
      dora_at<kLanes>(w + i * 64 + j, u == nullptr ? u : u + j, scaling, squares + i * 64 + j,
                      to == nullptr ? to : to + j);
    }
    for (; j < n; ++j) {
      dora_at<1>(w + i * 64 + j, u == nullptr ? u : u + j, scaling, squares + i * 64 + j, to == nullptr ? to : to + j);
    }
  }
}

constexpr GemmTable kGemmTable = {tile,          tile_transposed,    panels,          panels_at_once,
                                  panels_f32,    panels_f32_at_once, widen,           transpose_pairs,
                                  transpose_f32, transpose_rows,     transpose_words, round_bf16,
                                  finish,        dora_block};

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const GemmTable* gemm_simd() noexcept { return GRAFT_SIMD_TABLE(kGemmTable); }
#if !defined(__x86_64__)
const DotTable* gemm_avx512bf16() noexcept { return nullptr; }
const DotTable* gemm_amx() noexcept { return nullptr; }
#endif
}  // namespace graft
#endif
