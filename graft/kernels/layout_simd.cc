#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/layout_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/layout_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

constexpr int64_t kN = kRowLanes;  // a tile is kN x kN
using Row = hn::Vec<RowTag>;

// x[0 … count); nothing behind it is read.
HWY_INLINE Row load_part(const float* x, int64_t count) {
  if (count == kN) return hn::LoadU(RowTag(), x);
#if HWY_TARGET == HWY_NEON  // its masked load reads the whole vector
  HWY_ALIGN float whole[kN] = {};
  for (int64_t i = 0; i < count; ++i) whole[i] = x[i];
  return hn::Load(RowTag(), whole);
#else
  return hn::MaskedLoad(hn::FirstN(RowTag(), static_cast<size_t>(count)), RowTag(), x);
#endif
}
HWY_INLINE void store_part(Row v, float* y, int64_t count) {
  if (count == kN) return hn::StoreU(v, RowTag(), y);
#if HWY_TARGET == HWY_NEON
  HWY_ALIGN float whole[kN];
  hn::Store(v, RowTag(), whole);
  for (int64_t i = 0; i < count; ++i) y[i] = whole[i];
#else
  hn::BlendedStore(v, hn::FirstN(RowTag(), static_cast<size_t>(count)), RowTag(), y);
#endif
}

// Transposes the 4 x 4 in each 128-bit block of four rows.
HWY_INLINE void transpose_blocks(Row* r) {
  const RowTag d;
  const hn::Repartition<double, RowTag> dd;
  const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r[0], r[1]));
  const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r[0], r[1]));
  const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r[2], r[3]));
  const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r[2], r[3]));
  r[0] = hn::BitCast(d, hn::InterleaveLower(dd, low01, low23));
  r[1] = hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23));
  r[2] = hn::BitCast(d, hn::InterleaveLower(dd, high01, high23));
  r[3] = hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23));
}

// Rows r[0 … kN) to columns, in place. After transpose_blocks block b of r[4 g + j] holds column 4 b + j of rows 4 g … 4 g + 3.
HWY_INLINE void transpose_tile(Row* r) {
  for (int64_t g = 0; g < kN; g += 4) transpose_blocks(r + g);
#if HWY_MAX_BYTES == 64
  const RowTag d;
  for (int64_t j = 0; j < 4; ++j) {
    const Row a = r[j], b = r[4 + j], c = r[8 + j], e = r[12 + j];
    const Row ab_even = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a);  // a0 b0 a2 b2
    const Row ab_odd = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a));   // a1 b1 a3 b3
    const Row ce_even = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(e), c);
    const Row ce_odd = hn::OddEvenBlocks(e, hn::SwapAdjacentBlocks(c));
    r[j] = hn::ConcatLowerLower(d, ce_even, ab_even);
    r[4 + j] = hn::ConcatLowerLower(d, ce_odd, ab_odd);
    r[8 + j] = hn::ConcatUpperUpper(d, ce_even, ab_even);
    r[12 + j] = hn::ConcatUpperUpper(d, ce_odd, ab_odd);
  }
#elif HWY_MAX_BYTES == 32
  const RowTag d;
  for (int64_t j = 0; j < 4; ++j) {
    const Row a = r[j], b = r[4 + j];
    r[j] = hn::ConcatLowerLower(d, b, a);
    r[4 + j] = hn::ConcatUpperUpper(d, b, a);
  }
#endif
}

HWY_INLINE void whole_tile(const float* x, int64_t x_stride, float* y, int64_t y_stride, bool stream) {
  Row r[kN];
  for (int64_t i = 0; i < kN; ++i) r[i] = hn::LoadU(RowTag(), x + i * x_stride);
  transpose_tile(r);
  if (stream) {
    for (int64_t j = 0; j < kN; ++j) hn::Stream(r[j], RowTag(), y + j * y_stride);
  } else {
    for (int64_t j = 0; j < kN; ++j) hn::StoreU(r[j], RowTag(), y + j * y_stride);
  }
}

HWY_NOINLINE void part_tile(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows,
                            int64_t columns) {
  Row r[kN];
  for (int64_t i = 0; i < kN; ++i) r[i] = i < rows ? load_part(x + i * x_stride, columns) : hn::Zero(RowTag());
  transpose_tile(r);
  for (int64_t j = 0; j < columns; ++j) store_part(r[j], y + j * y_stride, rows);
}

bool is_aligned(const float* p, int64_t stride) { return reinterpret_cast<uintptr_t>(p) % 64 == 0 && stride % 16 == 0; }

// Stripes of 64 rows, tiles down each before the next columns: rows of y grow by four lines at a time.
void transpose(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t columns,
               bool stream) noexcept {
  constexpr int64_t kStripe = 64;
  stream = stream && is_aligned(y, y_stride);
  for (int64_t top = 0; top < rows; top += kStripe) {
    const int64_t bottom = HWY_MIN(rows, top + kStripe);
    for (int64_t c = 0; c < columns; c += kN) {
      const int64_t wide = HWY_MIN(kN, columns - c);
      int64_t r = top;
      if (wide == kN) {
        for (; r + kN <= bottom; r += kN) {
          whole_tile(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride, stream);
        }
      }
      for (; r < bottom; r += kN) {
        part_tile(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride, HWY_MIN(kN, bottom - r), wide);
      }
    }
  }
  if (stream) hwy::FlushStream();
}

// Loads and stores of kFields interleaved arrays.
template <int kFields>
struct Interleaved;
template <>
struct Interleaved<2> {
  static HWY_INLINE void load(const float* x, Row* v) { hn::LoadInterleaved2(RowTag(), x, v[0], v[1]); }
  static HWY_INLINE void store(const Row* v, float* y) { hn::StoreInterleaved2(v[0], v[1], RowTag(), y); }
};
template <>
struct Interleaved<3> {
  static HWY_INLINE void load(const float* x, Row* v) { hn::LoadInterleaved3(RowTag(), x, v[0], v[1], v[2]); }
  static HWY_INLINE void store(const Row* v, float* y) { hn::StoreInterleaved3(v[0], v[1], v[2], RowTag(), y); }
};
template <>
struct Interleaved<4> {
  static HWY_INLINE void load(const float* x, Row* v) { hn::LoadInterleaved4(RowTag(), x, v[0], v[1], v[2], v[3]); }
  static HWY_INLINE void store(const Row* v, float* y) { hn::StoreInterleaved4(v[0], v[1], v[2], v[3], RowTag(), y); }
};

template <int kFields>
HWY_INLINE void split_fields(const float* records, float* arrays, int64_t stride, int64_t n, bool stream) {
  Row v[kFields];
  int64_t i = 0;
  if (stream && is_aligned(arrays, stride)) {
    for (; i + kN <= n; i += kN) {
      Interleaved<kFields>::load(records + i * kFields, v);
      for (int f = 0; f < kFields; ++f) hn::Stream(v[f], RowTag(), arrays + f * stride + i);
    }
    hwy::FlushStream();
  }
  for (; i + kN <= n; i += kN) {
    Interleaved<kFields>::load(records + i * kFields, v);
    for (int f = 0; f < kFields; ++f) hn::StoreU(v[f], RowTag(), arrays + f * stride + i);
  }
  for (; i < n; ++i) {
    for (int f = 0; f < kFields; ++f) arrays[f * stride + i] = records[i * kFields + f];
  }
}

template <int kFields>
HWY_INLINE void join_fields(const float* arrays, int64_t stride, float* records, int64_t n, bool stream) {
  Row v[kFields];
  int64_t i = 0;
  if (stream && is_aligned(records, 0)) {
    HWY_ALIGN float stage[kFields * kN];
    for (; i + kN <= n; i += kN) {
      for (int f = 0; f < kFields; ++f) v[f] = hn::LoadU(RowTag(), arrays + f * stride + i);
      Interleaved<kFields>::store(v, stage);
      for (int f = 0; f < kFields; ++f) {
        hn::Stream(hn::Load(RowTag(), stage + f * kN), RowTag(), records + i * kFields + f * kN);
      }
    }
    hwy::FlushStream();
  }
  for (; i + kN <= n; i += kN) {
    for (int f = 0; f < kFields; ++f) v[f] = hn::LoadU(RowTag(), arrays + f * stride + i);
    Interleaved<kFields>::store(v, records + i * kFields);
  }
  for (; i < n; ++i) {
    for (int f = 0; f < kFields; ++f) records[i * kFields + f] = arrays[f * stride + i];
  }
}

void split(const float* records, int64_t fields, float* arrays, int64_t stride, int64_t n, bool stream) noexcept {
  if (fields == 2) return split_fields<2>(records, arrays, stride, n, stream);
  if (fields == 3) return split_fields<3>(records, arrays, stride, n, stream);
  split_fields<4>(records, arrays, stride, n, stream);
}
void join(const float* arrays, int64_t stride, float* records, int64_t fields, int64_t n, bool stream) noexcept {
  if (fields == 2) return join_fields<2>(arrays, stride, records, n, stream);
  if (fields == 3) return join_fields<3>(arrays, stride, records, n, stream);
  join_fields<4>(arrays, stride, records, n, stream);
}

}  // namespace

constexpr LayoutTable kLayoutTable = {transpose, split, join};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const LayoutTable* layout_simd() noexcept { return GRAFT_SIMD_TABLE(kLayoutTable); }
}  // namespace graft
#endif
