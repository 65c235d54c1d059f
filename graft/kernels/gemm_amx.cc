// bf16 dot products by AMX tiles (TDPBF16PS): 2 x 2 tiles of sums, two of x and two of W, so that four loads feed four
// multiplies. A 64-wide panel of pairs is four B tiles side by side: 16 pairs (rows 256 bytes apart) by 16 outputs.

#include <immintrin.h>

#include "graft/kernels/gemm_table.h"

namespace graft {
namespace {

constexpr int kTileRows = 32;
constexpr int64_t kPairs = 16;  // of a tile

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 … 3: sums (upper left, upper right, lower left, lower right); 4, 5: x (upper, lower); 6, 7: W (left, right).
void configure(int upper, int lower) {
  thread_local int configured = -1;  // loading a configuration costs some hundred cycles and few calls change it
  if (configured == upper * 64 + lower) return;
  configured = upper * 64 + lower;
  TileConfig config;
  const int rows[8] = {upper, upper, lower, lower, upper, lower, static_cast<int>(kPairs), static_cast<int>(kPairs)};
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = static_cast<uint8_t>(rows[i] == 0 ? 1 : rows[i]);
    config.row_bytes[i] = 64;
  }
  _tile_loadconfig(&config);
}

template <bool kTwoRows>
void half(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t num_pairs, float* c, int64_t c_stride,
          bool resume) {
  const auto a_bytes = static_cast<size_t>(a_stride * 4), c_bytes = static_cast<size_t>(c_stride * 4);
  const uint32_t* lower = a + 16 * a_stride;
  if (resume) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    if (kTwoRows) {
      _tile_loadd(2, c + 16 * c_stride, c_bytes);
      _tile_loadd(3, c + 16 * c_stride + 16, c_bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t p = 0; p < num_pairs; p += kPairs) {
    _tile_loadd(6, b + p * 64, 256);
    _tile_loadd(4, a + p, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + p * 64 + 16, 256);
    _tile_dpbf16ps(1, 4, 7);
    if (kTwoRows) {
      _tile_loadd(5, lower + p, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  if (kTwoRows) {
    _tile_stored(2, c + 16 * c_stride, c_bytes);
    _tile_stored(3, c + 16 * c_stride + 16, c_bytes);
  }
}

// One kind of instruction for every number of rows, so that a row's bits do not depend on its neighbours.
void tile(int rows, int lanes, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t num_pairs, float* c,
          int64_t c_stride, bool resume) noexcept {
  const int upper = rows < 16 ? rows : 16, lower = rows - upper;
  configure(upper, lower);
  for (int64_t j = 0; j < lanes; j += 32) {
    if (lower > 0) {
      half<true>(a, a_stride, b + j, num_pairs, c + j, c_stride, resume);
    } else {
      half<false>(a, a_stride, b + j, num_pairs, c + j, c_stride, resume);
    }
  }
}

}  // namespace

const DotTable* gemm_amx() noexcept {
  static const DotTable table = [] {
    DotTable t = *gemm_avx512bf16();
    t.tile = tile;
    t.panels = nullptr;
    t.tile_rows = kTileRows;
    t.pair_multiple = kPairs;
    return t;
  }();
  return &table;
}

}  // namespace graft
