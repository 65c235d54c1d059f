// Transposes of blocks of weights (gemm_table.h) in Highway. Include after hwy/highway.h; compiled once per target.

#if defined(GRAFT_KERNELS_GEMM_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_GEMM_TRANSPOSE_INL_H_
#undef GRAFT_KERNELS_GEMM_TRANSPOSE_INL_H_
#else
#define GRAFT_KERNELS_GEMM_TRANSPOSE_INL_H_
#endif

#include <cstdint>

// Loops over registers must vanish: an array of vectors that is indexed at run time lives in memory.
#undef GRAFT_UNROLL
#if defined(__clang__)
#define GRAFT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GRAFT_UNROLL _Pragma("GCC unroll 32")
#endif

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

const hn::FixedTag<uint32_t, 4> d4;
const hn::FixedTag<float, 4> f4;
using V4 = hn::Vec<decltype(d4)>;

HWY_INLINE void transpose4(V4& r0, V4& r1, V4& r2, V4& r3) {
  const hn::FixedTag<uint64_t, 2> d2;
  const auto t0 = hn::BitCast(d2, hn::InterleaveLower(d4, r0, r1)),
             t1 = hn::BitCast(d2, hn::InterleaveLower(d4, r2, r3));
  const auto t2 = hn::BitCast(d2, hn::InterleaveUpper(d4, r0, r1)),
             t3 = hn::BitCast(d2, hn::InterleaveUpper(d4, r2, r3));
  r0 = hn::BitCast(d4, hn::InterleaveLower(d2, t0, t1));
  r1 = hn::BitCast(d4, hn::InterleaveUpper(d2, t0, t1));
  r2 = hn::BitCast(d4, hn::InterleaveLower(d2, t2, t3));
  r3 = hn::BitCast(d4, hn::InterleaveUpper(d2, t2, t3));
}

// Four pairs of one row: eight consecutive values.
template <bool kBf16>
HWY_INLINE void store_row(V4 pairs, float* out) {
  if constexpr (kBf16) {
    const hn::Half<hn::FixedTag<uint16_t, 8>> dh;
    const hn::FixedTag<uint16_t, 8> d8;
    const auto halves = hn::BitCast(d8, pairs);
    hn::StoreU(hn::BitCast(f4, hn::ShiftLeft<16>(hn::PromoteTo(d4, hn::LowerHalf(dh, halves)))), f4, out);
    hn::StoreU(hn::BitCast(f4, hn::ShiftLeft<16>(hn::PromoteTo(d4, hn::UpperHalf(dh, halves)))), f4, out + 4);
  } else {
    const auto widen4 = [](V4 half) HWY_ATTR {
      const V4 magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(d4, 0x7FFF)));
      const V4 scaled = hn::BitCast(d4, hn::Mul(hn::BitCast(f4, magnitude), hn::Set(f4, 0x1p112f)));
      const auto special = hn::Ge(hn::BitCast(f4, magnitude), hn::BitCast(f4, hn::Set(d4, 0x0F800000)));
      const V4 sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(d4, 0x8000)));
      return hn::Or(hn::IfThenElse(hn::RebindMask(d4, special), hn::Or(magnitude, hn::Set(d4, 0x7F800000)), scaled),
                    sign);
    };
    const V4 low = widen4(hn::And(pairs, hn::Set(d4, 0xFFFF))), high = widen4(hn::ShiftRight<16>(pairs));
    hn::StoreU(hn::BitCast(f4, hn::InterleaveLower(d4, low, high)), f4, out);
    hn::StoreU(hn::BitCast(f4, hn::InterleaveUpper(d4, low, high)), f4, out + 4);
  }
}

template <bool kBf16>
void transpose_pairs_type(const uint32_t* HWY_RESTRICT pairs, int64_t n, int64_t num_pairs, float* HWY_RESTRICT out) {
  for (int64_t row = 0; row < n; row += 4) {
    for (int64_t p = 0; p < num_pairs; p += 4) {
      V4 r[4];
      for (int64_t i = 0; i < 4; ++i) {
        r[i] = p + i < num_pairs ? hn::LoadU(d4, pairs + (p + i) * 64 + row) : hn::Zero(d4);
      }
      transpose4(r[0], r[1], r[2], r[3]);
      for (int64_t i = 0; i < 4; ++i) {
        store_row<kBf16>(r[i], out + (row + i) * 64 + 2 * p);  // rows beyond n: the block has room
      }
    }
  }
}

void transpose_pairs(bool is_bf16, const uint32_t* pairs, int64_t n, int64_t num_pairs, float* out) noexcept {
  is_bf16 ? transpose_pairs_type<true>(pairs, n, num_pairs, out)
          : transpose_pairs_type<false>(pairs, n, num_pairs, out);
}

void transpose_f32(const float* HWY_RESTRICT panel, int64_t n, int64_t columns, float* HWY_RESTRICT out) noexcept {
  const auto* from = reinterpret_cast<const uint32_t*>(panel);
  for (int64_t row = 0; row < n; row += 4) {
    for (int64_t k = 0; k < columns; k += 4) {
      V4 r[4];
      for (int64_t i = 0; i < 4; ++i) r[i] = k + i < columns ? hn::LoadU(d4, from + (k + i) * 32 + row) : hn::Zero(d4);
      transpose4(r[0], r[1], r[2], r[3]);
      for (int64_t i = 0; i < 4; ++i) hn::StoreU(hn::BitCast(f4, r[i]), f4, out + (row + i) * 64 + k);
    }
  }
}

#if HWY_MAX_BYTES >= 32
// An 8 x 8 block: out[i * out_stride + j] = rows[j * row_stride + i].
HWY_INLINE void transpose8(const uint32_t* HWY_RESTRICT rows, int64_t row_stride, uint32_t* HWY_RESTRICT out,
                           int64_t out_stride) {
  const hn::FixedTag<uint32_t, 8> d8;
  const hn::FixedTag<uint64_t, 4> d64;
  using V8 = hn::Vec<decltype(d8)>;
  V8 four[2][4];  // rows 0 to 3 and 4 to 7: columns i and i + 4
  GRAFT_UNROLL
  for (int h = 0; h < 2; ++h) {
    const uint32_t* from = rows + 4 * h * row_stride;
    const V8 r0 = hn::LoadU(d8, from), r1 = hn::LoadU(d8, from + row_stride);
    const V8 r2 = hn::LoadU(d8, from + 2 * row_stride), r3 = hn::LoadU(d8, from + 3 * row_stride);
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d8, r0, r1)),
               b = hn::BitCast(d64, hn::InterleaveLower(d8, r2, r3));
    const auto c = hn::BitCast(d64, hn::InterleaveUpper(d8, r0, r1)),
               e = hn::BitCast(d64, hn::InterleaveUpper(d8, r2, r3));
    four[h][0] = hn::BitCast(d8, hn::InterleaveLower(d64, a, b));
    four[h][1] = hn::BitCast(d8, hn::InterleaveUpper(d64, a, b));
    four[h][2] = hn::BitCast(d8, hn::InterleaveLower(d64, c, e));
    four[h][3] = hn::BitCast(d8, hn::InterleaveUpper(d64, c, e));
  }
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) {
    hn::StoreU(hn::ConcatLowerLower(d8, four[1][i], four[0][i]), d8, out + i * out_stride);
    hn::StoreU(hn::ConcatUpperUpper(d8, four[1][i], four[0][i]), d8, out + (i + 4) * out_stride);
  }
}
#endif

void transpose_words(const uint32_t* HWY_RESTRICT rows, int64_t row_stride, int64_t count, int64_t n,
                     uint32_t* HWY_RESTRICT out, int64_t out_stride) noexcept {
  int64_t j = 0;
#if HWY_MAX_BYTES >= 32
  for (; j + 8 <= count && n >= 8; j += 16) {  // 16 rows fill whole lines of out
    const bool two = j + 16 <= count;
    for (int64_t k = 0; k < n; k += 8) {
      const int64_t at = k + 8 <= n ? k : n - 8;  // the last ones once more
      transpose8(rows + j * row_stride + at, row_stride, out + at * out_stride + j, out_stride);
      if (two) transpose8(rows + (j + 8) * row_stride + at, row_stride, out + at * out_stride + j + 8, out_stride);
    }
    if (!two) {
      j += 8;
      break;
    }
  }
#endif
  for (; j + 4 <= count; j += 4) {
    int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
      V4 r[4];
      for (int64_t i = 0; i < 4; ++i) r[i] = hn::LoadU(d4, rows + (j + i) * row_stride + k);
      transpose4(r[0], r[1], r[2], r[3]);
      for (int64_t i = 0; i < 4; ++i) hn::StoreU(r[i], d4, out + (k + i) * out_stride + j);
    }
    for (; k < n; ++k) {
      for (int64_t i = 0; i < 4; ++i) out[k * out_stride + j + i] = rows[(j + i) * row_stride + k];
    }
  }
  for (; j < count; ++j) {
    for (int64_t k = 0; k < n; ++k) out[k * out_stride + j] = rows[j * row_stride + k];
  }
}

void transpose_rows(const float* rows, int64_t row_stride, int64_t count, int64_t n, float* out,
                    int64_t out_stride) noexcept {
  transpose_words(reinterpret_cast<const uint32_t*>(rows), row_stride, count, n, reinterpret_cast<uint32_t*>(out),
                  out_stride);
  const int64_t end = (count + 7) / 8 * 8;  // lanes that are multiplied too
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t j = count; j < end; ++j) out[k * out_stride + j] = 0.0f;
  }
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
