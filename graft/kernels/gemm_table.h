#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/gemm.h"

namespace graft {

// The vector parts of the matrix products, one table per instruction set (simd.h). gemm_nt.cc and gemm_grad.cc drive
// them: they cut the work into tasks, lay blocks of B into scratch and call these. Lanes lie over the outputs; a block
// of B is [n][stride] with n <= 512 summed entries.
constexpr int64_t kGemmBlock = 512;  // the summed dimension is cut here (gemm.h)
constexpr int64_t kGemmPanel = 64;   // outputs a task works on together
constexpr int kGemmTileRows = 12;    // rows of x that share one load of B

enum class GemmSums {
  kWrite,   // c = chain from +0
  kAdd,     // c = c + chain from +0
  kResume,  // c = chain from c
};

struct GemmTable {
  // c[m][j] (+)= chain over k of a(m, k) * b[k * b_stride + j], m < rows <= 12, j < lanes (8, 16, 24, 32).
  // tile: a(m, k) = a[m * a_stride + k]; tile_transposed: a(m, k) = a[k * a_stride + m].
  void (*tile)(int rows, int lanes, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n,
               float* c, int64_t c_stride, GemmSums sums) noexcept;
  void (*tile_transposed)(int rows, int lanes, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                          int64_t n, float* c, int64_t c_stride, GemmSums sums) noexcept;
  // The same sums for `panels` 16-bit panels of 64 outputs at once, widened in registers: for few rows, where memory is
  // the limit. pairs points at summed entry k0 (even) of the first panel, whose successors follow at panel_stride; c
  // [rows][panels * 64].
  void (*panels)(int rows, int panels, bool is_bf16, const float* a, int64_t a_stride, const uint32_t* pairs,
                 int64_t panel_stride, int64_t n, float* c, bool add) noexcept;
  int (*panels_at_once)(int rows) noexcept;  // how many hide the latency of the chain; else 1
  // The same for f32 panels of 32 outputs: panels_f32_at_once(rows) of them, or 2 where that is not 0; c [rows][panels
  // * 32].
  void (*panels_f32)(int rows, int panels, const float* a, int64_t a_stride, const float* w, int64_t panel_stride,
                     int64_t n, float* c, bool add) noexcept;
  int (*panels_f32_at_once)(int rows) noexcept;

  // Blocks of B, [n][64] f32 each:
  void (*widen)(bool is_bf16, const uint32_t* pairs, int64_t n, float* out) noexcept;  // from [n / 2][64] pairs
  // B[i][j] = W[row + i, column + j] for n rows, 64 columns of a packed weight; row and column are multiples of 64 (or
  // 32 rows).
  void (*transpose_pairs)(bool is_bf16, const uint32_t* pairs, int64_t n, int64_t num_pairs,
                          float* out) noexcept;                                                // n <= 64 rows
  void (*transpose_f32)(const float* panel, int64_t n, int64_t columns, float* out) noexcept;  // n <= 32 rows
  // B[i][j] = rows[j * row_stride + i]: n summed entries, `count` <= 64 outputs from plain rows; out_stride between
  // entries, zeros up to a multiple of 8 outputs.
  void (*transpose_rows)(const float* rows, int64_t row_stride, int64_t count, int64_t n, float* out,
                         int64_t out_stride) noexcept;

  // For packing weights (weight.cc): out[i * out_stride + j] = rows[j * row_stride + i], j < count, i < n; and rounding
  // to bf16.
  void (*transpose_words)(const uint32_t* rows, int64_t row_stride, int64_t count, int64_t n, uint32_t* out,
                          int64_t out_stride) noexcept;
  void (*round_bf16)(const float* x, int64_t n, uint16_t* out) noexcept;

  // y[j] = c[j] * scale (where != 1) + bias[j] (where not null) + residual[j] (where not null), j < n, for every row.
  void (*finish)(const float* c, int64_t c_stride, int64_t rows, int64_t n, float scale, const float* bias,
                 const float* residual, int64_t residual_stride, float* y, int64_t y_stride) noexcept;
  // v = w + scaling * update (update may be null); squares[i][j] = fma(v, v, squares[i][j]); merged (may be null) = v.
  // Blocks [rows][64].
  void (*dora_block)(const float* w, const float* update, int64_t rows, int64_t n, float scaling, float* squares,
                     float* merged, int64_t merged_stride) noexcept;
};

const GemmTable* gemm_simd() noexcept;  // null: run the reference

// bf16 dot products: pairs of bf16 along the summed dimension. One kind of instruction for every number of rows; the
// chain of an output runs over the whole dimension, so that a chain may be left in c and resumed.
struct DotTable {
  // c[m][j] = (resume ? c[m][j] : +0) + chain over p of dot(a[m * a_stride + p], b[p * 64 + j]), m < rows <= tile_rows,
  // j < lanes (or more). b is padded with zeros to an even number of summed entries, and to pair_multiple pairs (as is
  // a).
  void (*tile)(int rows, int lanes, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t num_pairs, float* c,
               int64_t c_stride, bool resume) noexcept;
  // The whole chains of few rows against panels_at_once(rows) panels beside each other: c [rows][panels * 64]. Null:
  // one by one.
  void (*panels)(int rows, const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t panel_stride,
                 int64_t num_pairs, float* c) noexcept;
  int (*panels_at_once)(int rows) noexcept;
  void (*round_row)(const float* x, int64_t n, uint16_t* out) noexcept;  // to nearest even
  // b[p][j] = (W[2p, column j], W[2p + 1, column j]) from a 16-bit panel: n <= 64 rows (an odd last one is paired with
  // zero), num_pairs pairs of columns.
  void (*transpose)(const uint32_t* pairs, int64_t n, int64_t num_pairs, uint32_t* out) noexcept;
  void (*round_block)(const float* block, int64_t n, uint32_t* out) noexcept;  // f32 [n][64] to pairs [(n + 1) / 2][64]
  int tile_rows;
  int64_t pair_multiple;
};

const DotTable*
gemm_avx512bf16() noexcept;  // null where the code does not exist; runs only where cpu_level() allows it
const DotTable* gemm_amx() noexcept;

// The blocked drivers. False: nothing was done (no vector code here, too little scratch, or strides they do not take).
bool blocked_nt(Context& context, Compute compute, View<const float, 2> x,
                std::span<const MatmulOutput<float>> outputs) noexcept;
bool blocked_nn(Context& context, Compute compute, std::span<const MatmulSource<float>> sources, bool accumulate,
                View<float, 2> dx) noexcept;
// norm[o] = || v_o ||, v_o = w_o + scaling * b_o A, and merged = v where that is not null.
bool blocked_dora(Context& context, const Operand<float>& w, View<const float, 2> a, View<const float, 2> b,
                  float scaling, std::span<float> norm, View<float, 2> merged) noexcept;
bool blocked_tn(Context& context, View<const float, 2> a, View<const float, 2> b, float scale, bool accumulate,
                View<float, 2> dw) noexcept;

}  // namespace graft
