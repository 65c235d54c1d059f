// The register tile that every product of attention is made of. Include after hwy/highway.h; compiled once per target.
//
//   acc[m][n] = init[m][n], then fma(a[m * a_row + k * a_k], b[k * b_k + n], acc[m][n]) for k ascending over the range
//     of (m, n)
//
// Lanes lie over n, never over k; a is broadcast from memory at any strides, b is read in vectors. Init and finish are
// functors:
//   init(m, v, column) -> vector,  finish(m, v, column, vector),  with m the row and column = first lane of the vector.

#if defined(GRAFT_KERNELS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_ATTENTION_TILE_INL_H_
#undef GRAFT_KERNELS_ATTENTION_TILE_INL_H_
#else
#define GRAFT_KERNELS_ATTENTION_TILE_INL_H_
#endif

#include <cstdint>

#include "graft/base/float16.h"
#include "hwy/highway.h"

// Vectors in an array stay in registers only where every index is a constant.
#undef GRAFT_UNROLL
#if defined(__clang__)
#define GRAFT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GRAFT_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vec = hn::Vec<Tag>;
constexpr int64_t kLanes = HWY_MAX_BYTES / 4;
// Widest tile in vectors: with 6 rows it keeps 24 (or 12 of 16) registers busy, and 10 loads feed 24 multiply-adds.
constexpr int64_t kWide = HWY_TARGET == HWY_AVX2 ? 2 : 4;
constexpr int64_t kGroups = 64 / kLanes;  // vectors in a block of 64

HWY_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
HWY_INLINE int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
HWY_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }
HWY_INLINE int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

struct Matrix {
  const float* data;
  int64_t row, k;  // strides
};

// Which k an output takes. All of [0, size):
struct Whole {
  int64_t size;
};
// Row m: [begin + m, end + m), cut to [0, size).
struct RowBand {
  int64_t begin, end, size;
};
// Column n of one vector: [begin[n], end[n]); all lanes take [all_low, all_high), none takes what lies outside [low,
// high).
struct LaneBand {
  Vec begin, end;
  int64_t low, all_low, all_high, high;
};

template <int kRows, int kVectors>
HWY_INLINE void multiply_add(const float* a, int64_t a_row, const float* b, Vec (&acc)[kRows][kVectors]) {
  const Tag d;
  Vec x[kVectors];
  GRAFT_UNROLL
  for (int v = 0; v < kVectors; ++v) x[v] = hn::LoadU(d, b + v * kLanes);
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    const Vec y = hn::Set(d, a[m * a_row]);
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) acc[m][v] = hn::MulAdd(y, x[v], acc[m][v]);
  }
}

template <int kRows, int kVectors>
HWY_INLINE void multiply_add_some(const float* a, int64_t a_row, const float* b, int64_t k, RowBand band,
                                  Vec (&acc)[kRows][kVectors]) {
  const Tag d;
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    if (k < band.begin + m || k >= band.end + m) continue;
    const Vec y = hn::Set(d, a[m * a_row]);
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) acc[m][v] = hn::MulAdd(y, hn::LoadU(d, b + v * kLanes), acc[m][v]);
  }
}

template <int kRows>
HWY_INLINE void multiply_add_some(const float* a, int64_t a_row, const float* b, int64_t k, const LaneBand& band,
                                  Vec (&acc)[kRows][1]) {
  const Tag d;
  const Vec at = hn::Set(d, static_cast<float>(k)), x = hn::LoadU(d, b);
  const auto takes = hn::And(hn::Ge(at, band.begin), hn::Lt(at, band.end));
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    acc[m][0] = hn::IfThenElse(takes, hn::MulAdd(hn::Set(d, a[m * a_row]), x, acc[m][0]), acc[m][0]);
  }
}

// k in [low, high) may take part; all outputs take [all_low, all_high).
struct Range {
  int64_t low, all_low, all_high, high;
};
HWY_INLINE Range range_of(Whole band, int, int64_t) { return {0, 0, band.size, band.size}; }
HWY_INLINE Range range_of(RowBand band, int rows, int64_t first_row) {
  const int64_t begin = band.begin + first_row, end = band.end + first_row;
  return {clamp(begin, 0, band.size), clamp(begin + rows - 1, 0, band.size), clamp(end, 0, band.size),
          clamp(end + rows - 1, 0, band.size)};
}
HWY_INLINE Range range_of(const LaneBand& band, int, int64_t) {
  return {band.low, band.all_low, band.all_high, band.high};
}
HWY_INLINE Whole from_row(Whole band, int64_t) { return band; }
HWY_INLINE RowBand from_row(RowBand band, int64_t row) { return {band.begin + row, band.end + row, band.size}; }
HWY_INLINE const LaneBand& from_row(const LaneBand& band, int64_t) { return band; }

template <int kRows, int kVectors, class Band, class Init, class Finish>
HWY_INLINE void tile(Matrix a, const float* b, int64_t b_k, const Band& band, int64_t row, int64_t column,
                     const Init& init, const Finish& finish) {
  Vec acc[kRows][kVectors];
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) acc[m][v] = init(row + m, column + v * kLanes);
  }
  const float* from = a.data + row * a.row;
  const float* to = b + column;
  Range range = range_of(band, kRows, row);
  if (range.all_low > range.all_high) range.all_low = range.all_high = range.high;
  int64_t k = range.low;
  if constexpr (!hwy::IsSame<Band, Whole>()) {
    for (; k < range.all_low; ++k) multiply_add_some(from + k * a.k, a.row, to + k * b_k, k, from_row(band, row), acc);
  }
  const float* p = from + k * a.k;
  const float* q = to + k * b_k;
  for (; k < range.all_high; ++k, p += a.k, q += b_k) multiply_add<kRows, kVectors>(p, a.row, q, acc);
  if constexpr (!hwy::IsSame<Band, Whole>()) {
    for (; k < range.high; ++k) multiply_add_some(from + k * a.k, a.row, to + k * b_k, k, from_row(band, row), acc);
  }
  GRAFT_UNROLL
  for (int m = 0; m < kRows; ++m) {
    GRAFT_UNROLL
    for (int v = 0; v < kVectors; ++v) finish(row + m, column + v * kLanes, acc[m][v]);
  }
}

// Rows [row, row_end) of one strip of columns.
template <int kVectors, class Band, class Init, class Finish>
HWY_INLINE void strip(Matrix a, const float* b, int64_t b_k, const Band& band, int64_t row, int64_t row_end,
                      int64_t column, const Init& init, const Finish& finish) {
  constexpr int kRows = kVectors == 1 ? 12 : kVectors == 2 && kWide == 4 ? 12 : 6;
  for (; row + kRows <= row_end; row += kRows) tile<kRows, kVectors>(a, b, b_k, band, row, column, init, finish);
  if constexpr (kRows == 12) {
    if (row + 6 <= row_end) {
      tile<6, kVectors>(a, b, b_k, band, row, column, init, finish);
      row += 6;
    }
  }
  if (row + 4 <= row_end) {
    tile<4, kVectors>(a, b, b_k, band, row, column, init, finish);
    row += 4;
  }
  if (row + 2 <= row_end) {
    tile<2, kVectors>(a, b, b_k, band, row, column, init, finish);
    row += 2;
  }
  if (row < row_end) tile<1, kVectors>(a, b, b_k, band, row, column, init, finish);
}

// Rows [0, rows) of columns [0, columns), columns a multiple of the vector.
template <class Band, class Init, class Finish>
HWY_INLINE void product(Matrix a, const float* b, int64_t b_k, const Band& band, int64_t rows, int64_t columns,
                        const Init& init, const Finish& finish) {
  int64_t column = 0;
  for (; column + kWide * kLanes <= columns; column += kWide * kLanes) {
    strip<kWide>(a, b, b_k, band, 0, rows, column, init, finish);
  }
  if constexpr (kWide == 4) {
    if (column + 2 * kLanes <= columns) {
      strip<2>(a, b, b_k, band, 0, rows, column, init, finish);
      column += 2 * kLanes;
    }
  }
  for (; column < columns; column += kLanes) strip<1>(a, b, b_k, band, 0, rows, column, init, finish);
}

struct FromZero {
  HWY_INLINE Vec operator()(int64_t, int64_t) const { return hn::Zero(Tag()); }
};

// to[m][n] = scale * acc
struct StoreScaled {
  float* to;
  int64_t row;
  float scale;
  HWY_INLINE void operator()(int64_t m, int64_t column, Vec acc) const {
    const Tag d;
    hn::StoreU(hn::Mul(hn::Set(d, scale), acc), d, to + m * row + column);
  }
};

// to[m][n] += acc
struct AddTo {
  float* to;
  int64_t row;
  HWY_INLINE void operator()(int64_t m, int64_t column, Vec acc) const {
    const Tag d;
    float* p = to + m * row + column;
    hn::StoreU(hn::Add(hn::LoadU(d, p), acc), d, p);
  }
};

// Sum of the lanes by halves: + lanes / 2, …, + 1.
template <class D>
HWY_INLINE float tree_of_lanes([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return hn::GetLane(v);
  } else {
    const hn::Half<D> half;
    return tree_of_lanes(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// 64 lanes of vectors: + 32 … down to one vector.
HWY_INLINE Vec tree_of_vectors(Vec (&x)[kGroups]) {
  GRAFT_UNROLL
  for (int64_t step = kGroups / 2; step > 0; step /= 2) {
    GRAFT_UNROLL
    for (int64_t i = 0; i < step; ++i) x[i] = hn::Add(x[i], x[i + step]);
  }
  return x[0];
}

// to[c][r] = from[r][c] for a 4 x 4 block; strides between rows.
HWY_INLINE void transpose_4x4(const float* from, int64_t from_row, float* to, int64_t to_row) {
  const hn::Full128<float> d;
  const hn::Full128<double> dd;
  const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + from_row);
  const auto r2 = hn::LoadU(d, from + 2 * from_row), r3 = hn::LoadU(d, from + 3 * from_row);
  const auto a = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)), b = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3));
  const auto e = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1)), f = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, a, b)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, a, b)), d, to + to_row);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, e, f)), d, to + 2 * to_row);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, e, f)), d, to + 3 * to_row);
}

// to[c][r] = from[r][c]: rows x columns, `from` with strides for both. Walks along the rows of `from` (or, by_columns,
// of `to`): along those that lie far apart, since narrow writes to many lines of few cache sets cost three times as
// much.
HWY_INLINE void transpose(const float* from, int64_t from_row, int64_t from_column, int64_t rows, int64_t columns,
                          float* to, int64_t to_row, bool by_columns = false) {
  const int64_t r4 = from_column == 1 ? rows / 4 * 4 : 0, c4 = columns / 4 * 4;
  if (by_columns) {
    for (int64_t c = 0; c < c4; c += 4) {
      for (int64_t r = 0; r < r4; r += 4) transpose_4x4(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
    }
  } else {
    for (int64_t r = 0; r < r4; r += 4) {
      for (int64_t c = 0; c < c4; c += 4) transpose_4x4(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < r4 ? c4 : 0; c < columns; ++c) to[c * to_row + r] = from[r * from_row + c * from_column];
  }
}

// to[r][c] = from[r][c], columns padded with zeros to `width`.
HWY_INLINE void copy_rows(const float* from, int64_t from_row, int64_t from_column, int64_t rows, int64_t columns,
                          float* to, int64_t width) {
  const Tag d;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t c = 0;
    if (from_column == 1) {
      for (; c + kLanes <= columns; c += kLanes) {
        hn::StoreU(hn::LoadU(d, from + r * from_row + c), d, to + r * width + c);
      }
    }
    for (; c < columns; ++c) to[r * width + c] = from[r * from_row + c * from_column];
    for (; c < width; ++c) to[r * width + c] = 0;
  }
}

// to[e * stride] = from[e] for e < count, and 0 where from is null.
HWY_INLINE void store_row(const float* from, int64_t count, float* to, int64_t stride) {
  const Tag d;
  int64_t e = 0;
  if (stride == 1) {
    for (; e + kLanes <= count; e += kLanes) {
      hn::StoreU(from != nullptr ? hn::LoadU(d, from + e) : hn::Zero(d), d, to + e);
    }
  }
  for (; e < count; ++e) to[e * stride] = from != nullptr ? from[e] : 0;
}

// The same from f16, widened.
HWY_INLINE void copy_rows(const f16* from, int64_t from_row, int64_t from_column, int64_t rows, int64_t columns,
                          float* to, int64_t width) {
  const Tag d;
  const hn::Rebind<hwy::float16_t, Tag> half;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t c = 0;
    if (from_column == 1) {
      for (; c + kLanes <= columns; c += kLanes) {
        const auto* at = reinterpret_cast<const hwy::float16_t*>(from + r * from_row + c);
        hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, at)), d, to + r * width + c);
      }
    }
    for (; c < columns; ++c) to[r * width + c] = to_float(from[r * from_row + c * from_column]);
    for (; c < width; ++c) to[r * width + c] = 0;
  }
}

HWY_INLINE float widen(float x) { return x; }
HWY_INLINE float widen(f16 x) { return to_float(x); }

HWY_INLINE void fill(float* to, int64_t count, float value) {  // count a multiple of the vector
  const Tag d;
  for (int64_t i = 0; i < count; i += kLanes) hn::StoreU(hn::Set(d, value), d, to + i);
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
