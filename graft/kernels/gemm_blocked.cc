// Cuts products into tasks of 64 outputs by some rows, lays blocks of B into each worker's scratch and calls the vector parts.

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>

#include "graft/base/cpu.h"
#include "graft/base/float16.h"
#include "graft/kernels/gemm_ref.h"
#include "graft/kernels/gemm_table.h"

namespace graft {
namespace {

constexpr int64_t kMaxRowBlock = 768;  // rows of a task: their partial sums (192 KB) and a block of B (128 KB) stay in L2
constexpr int64_t kBlockFloats = kGemmBlock * kGemmPanel;
constexpr int64_t kPackBytes = int64_t{8} << 20;  // packed x at a time
constexpr int64_t kLeastPackedRows = 64;
constexpr int kTasksPerThread = 4;  // enough for a late thread to catch up

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes between packed rows: an odd number of cache lines, so that the rows of a tile never share an L1 set.
int64_t packed_row_bytes(int64_t bytes) { return (ceil_div(bytes, 64) | 1) * 64; }
int64_t packed_rows_at_once(int64_t rows, int64_t row_bytes) { return std::min(rows, std::max(kLeastPackedRows, kPackBytes / row_bytes)); }

// Rows whose distance is near a power of two meet in the same few sets of an 8-way, 64-set L1.
bool rows_collide(int64_t stride) {
  const int64_t lines = stride * 4 / 64 % 64;
  return stride * 4 % 64 == 0 && 64 / std::gcd(lines, int64_t{64}) < 4;
}

struct Rows {  // x or dy: f32 rows where they are or packed
  const float* data;
  int64_t stride;
};

struct Split {
  int64_t rows, block, count;  // `count` blocks of `block` rows
  int64_t begin(int64_t i) const { return i * block; }
  int64_t end(int64_t i) const { return std::min(rows, (i + 1) * block); }
};

// Enough row blocks for all threads where there are few column blocks.
Split split_rows(int64_t rows, int64_t column_blocks, int threads, int64_t tile_rows) {
  const int64_t wanted = threads == 1 ? 1 : ceil_div(int64_t{kTasksPerThread} * threads, std::max<int64_t>(1, column_blocks));
  const int64_t blocks = std::max(ceil_div(rows, kMaxRowBlock), std::min(wanted, ceil_div(rows, 2 * tile_rows)));
  const int64_t block = blocks == 0 ? 1 : std::min(kMaxRowBlock, ceil_div(ceil_div(rows, blocks), tile_rows) * tile_rows);
  return {rows, block, ceil_div(rows, block)};
}

// Calls f(first, count) for tiles of nearly equal height.
template <typename F>
void for_each_tile(int64_t rows, int64_t tile_rows, F&& f) {
  const int64_t tiles = ceil_div(rows, tile_rows);
  for (int64_t i = 0, row = 0; i < tiles; ++i) {
    const int64_t count = rows / tiles + (i < rows % tiles ? 1 : 0);
    f(row, static_cast<int>(count));
    row += count;
  }
}

// Memory that the next block of B will be made from, asked for in small portions between the tiles of this one: `chunks` pieces of
// `bytes`, `stride` bytes apart, into L2.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const void* base, int64_t chunks, int64_t bytes, int64_t stride)
      : base_(static_cast<const char*>(base)), lines_(bytes / 64), stride_(stride), total_(chunks * lines_) {}
  void portion(int64_t parts) {  // 1 / parts of all
    for (int64_t end = std::min(total_, next_ + total_ / parts + 1); next_ < end; ++next_) {
      __builtin_prefetch(base_ + next_ / lines_ * stride_ + next_ % lines_ * 64, 0, 2);
    }
  }

 private:
  const char* base_ = nullptr;
  int64_t lines_ = 1, stride_ = 0, total_ = 0, next_ = 0;
};

// A block of B in f32: two halves of 32 lanes.
struct Block {
  const float* data;
  int64_t stride, half;
};

void multiply(const GemmTable& table, const Rows& x, int64_t rows, int64_t lanes, const Block& b, int64_t n, float* c, bool add,
              Ahead ahead = {}) {
  const int64_t tiles = ceil_div(rows, kGemmTileRows);
  for_each_tile(rows, kGemmTileRows, [&](int64_t row, int count) {
    ahead.portion(tiles);
    for (int64_t j = 0; j < lanes; j += 32) {
      table.tile(count, lanes - j > 16 ? 32 : 16, x.data + row * x.stride, x.stride, b.data + j / 32 * b.half, b.stride, n,
                 c + row * kGemmPanel + j, kGemmPanel, add);
    }
  });
}

void round_to_bf16(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = to_float(to_bf16(x[i]));
}

bool stored_as(const Operand<float>& w, DType type) { return w.weight != nullptr && w.weight->type() == type; }
bool is_16_bit(const Operand<float>& w) { return stored_as(w, DType::kBF16) || stored_as(w, DType::kF16); }

const uint32_t* pairs_at(const Weight& w, int64_t panel, int64_t pair) {
  return static_cast<const uint32_t*>(w.data()) + (panel * ((w.in_features() + 1) / 2) + pair) * kGemmPanel;
}

// What block_nt and block_nn read for the block at (o0, k0). f32 panels are multiplied where they lie: the hardware follows them well.
Ahead ahead_nt(const Operand<float>& w, int64_t o0, int64_t k0, int64_t n) {
  if (!is_16_bit(w) || o0 >= w.out_features()) return {};
  return {pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), 1, n * 128, 0};
}
Ahead ahead_nn(const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count) {
  if (w.weight == nullptr || k0 >= w.in_features()) return {};
  const int64_t in = w.weight->in_features();
  if (w.weight->type() == DType::kF32) {
    return {static_cast<const float*>(w.weight->data()) + o0 * in + k0 * 32, ceil_div(n, 32), count * 128, in * 128};
  }
  return {pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), ceil_div(n, kGemmPanel), (count + 1) / 2 * 256, (in + 1) / 2 * 256};
}

// B[k][o]: summed entries [k0, k0 + n), outputs [o0, o0 + count). Written to `scratch`, unless the weight lies in memory that way.
Block block_nt(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t count, int64_t k0, int64_t n, bool rounded,
               float* scratch) {
  const Block in_scratch = {scratch, kGemmPanel, 32};
  if (w.weight == nullptr) {
    const float* rows = w.rows.data() + o0 * w.rows.stride(0) + k0 * w.rows.stride(1);
    if (w.rows.stride(1) == 1) {
      table.transpose_rows(rows, w.rows.stride(0), count, n, scratch);
    } else {
      for (int64_t k = 0; k < n; ++k) {
        for (int64_t j = 0; j < count; ++j) scratch[k * kGemmPanel + j] = rows[j * w.rows.stride(0) + k * w.rows.stride(1)];
      }
    }
  } else if (w.weight->type() == DType::kF32) {
    const int64_t half = w.weight->in_features() * 32;
    const float* panel = static_cast<const float*>(w.weight->data()) + o0 / 32 * half + k0 * 32;
    if (!rounded) return {panel, 32, half};
    for (int64_t k = 0; k < n; ++k) {
      std::memcpy(scratch + k * kGemmPanel, panel + k * 32, 128);
      if (count > 32) std::memcpy(scratch + k * kGemmPanel + 32, panel + half + k * 32, 128);
    }
  } else {
    const bool is_bf16 = w.weight->type() == DType::kBF16;
    table.widen(is_bf16, pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), n, scratch);
    rounded = rounded && !is_bf16;
  }
  if (rounded) round_to_bf16(scratch, n * kGemmPanel);
  return in_scratch;
}

// B[o][k]: summed entries are the outputs [o0, o0 + n), lanes the columns [k0, k0 + count); k0 and o0 are multiples of 64.
void block_nn(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count, bool rounded,
              float* scratch) {
  if (w.weight == nullptr) {
    for (int64_t o = 0; o < n; ++o) {
      const float* row = w.rows.data() + (o0 + o) * w.rows.stride(0) + k0 * w.rows.stride(1);
      float* to = scratch + o * kGemmPanel;
      if (w.rows.stride(1) == 1) {
        std::memcpy(to, row, static_cast<size_t>(count) * sizeof(float));
      } else {
        for (int64_t k = 0; k < count; ++k) to[k] = row[k * w.rows.stride(1)];
      }
    }
  } else if (w.weight->type() == DType::kF32) {
    const int64_t in = w.weight->in_features();
    for (int64_t o = 0; o < n; o += 32) {
      const float* panel = static_cast<const float*>(w.weight->data()) + (o0 + o) / 32 * in * 32 + k0 * 32;
      table.transpose_f32(panel, std::min<int64_t>(32, n - o), count, scratch + o * kGemmPanel);
    }
  } else {
    const bool is_bf16 = w.weight->type() == DType::kBF16;
    for (int64_t o = 0; o < n; o += kGemmPanel) {
      table.transpose_pairs(is_bf16, pairs_at(*w.weight, (o0 + o) / kGemmPanel, k0 / 2), std::min(kGemmPanel, n - o), (count + 1) / 2,
                            scratch + o * kGemmPanel);
    }
    rounded = rounded && !is_bf16;
  }
  if (rounded) round_to_bf16(scratch, n * kGemmPanel);
}

// Adds the adapters' updates to the sums c of rows [row_begin, row_begin + rows) and outputs [o0, o0 + count).
void add_terms(const GemmTable& table, const MatmulOutput<float>& output, int64_t row_begin, int64_t rows, int64_t o0, int64_t count,
               float* scratch, float* c) {
  const int64_t lanes = ceil_div(count, 16) * 16;
  for (const LoraTerm<float>& term : output.terms) {
    const int64_t begin = std::max(row_begin, term.row_begin), end = std::min(row_begin + rows, term.row_end);
    if (begin >= end) continue;
    const int64_t rank = term.b.extent(1);
    for (int64_t r0 = 0; r0 < rank; r0 += kGemmBlock) {
      const int64_t n = std::min(kGemmBlock, rank - r0);
      const Block b = block_nt(table, {nullptr, term.b}, o0, count, r0, n, false, scratch);
      const Rows h = {term.h.row(begin - term.row_begin) + r0, term.h.stride(0)};
      multiply(table, h, end - begin, lanes, b, n, c + (begin - row_begin) * kGemmPanel, true);
    }
  }
}

void finish(const GemmTable& table, const MatmulOutput<float>& output, const float* c, int64_t c_stride, int64_t row, int64_t rows,
            int64_t o0, int64_t count) {
  table.finish(c, c_stride, rows, count, 1.0f, output.bias.empty() ? nullptr : output.bias.data() + o0,
               output.residual.data() == nullptr ? nullptr : output.residual.row(row) + o0, output.residual.stride(0),
               output.y.row(row) + o0, output.y.stride(0));
}

void scale_rows(float* c, int64_t n, float scale) {
  if (scale == 1.0f) return;
  for (int64_t i = 0; i < n; ++i) c[i] *= scale;
}

// Everything after the sums: scale, adapters, bias, residual.
void epilogue(const GemmTable& table, const MatmulOutput<float>& output, int64_t row, int64_t rows, int64_t o0, int64_t count,
              float* scratch, float* c) {
  scale_rows(c, rows * kGemmPanel, output.scale);
  add_terms(table, output, row, rows, o0, count, scratch, c);
  finish(table, output, c, kGemmPanel, row, rows, o0, count);
}

// One task of y = x W^T in f32: x begins at row `row` of y.
// next_block: how many blocks of outputs further this thread's next task probably lies.
void task_nt(const GemmTable& table, bool rounded, const Rows& x, int64_t in, const MatmulOutput<float>& output, int64_t row,
             int64_t rows, int64_t o0, int64_t next_block, float* scratch) {
  float* const b_scratch = scratch;
  float* const c = scratch + kBlockFloats;
  const int64_t count = std::min(kGemmPanel, output.w.out_features() - o0), lanes = ceil_div(count, 16) * 16;
  if (in == 0) std::fill_n(c, rows * kGemmPanel, 0.0f);
  for (int64_t k0 = 0; k0 < in; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, in - k0);
    const Block b = block_nt(table, output.w, o0, count, k0, n, rounded, b_scratch);
    const bool last = k0 + n == in;
    const int64_t next_k = last ? 0 : k0 + n, next_o = last ? o0 + next_block * kGemmPanel : o0;
    multiply(table, {x.data + k0, x.stride}, rows, lanes, b, n, c, k0 > 0,
             ahead_nt(output.w, next_o, next_k, std::min(kGemmBlock, in - next_k)));
  }
  epilogue(table, output, row, rows, o0, count, b_scratch, c);
}

// Everything after the sums c [rows][num_panels * 64] of few rows.
void epilogue_panels(const GemmTable& table, const MatmulOutput<float>& output, int64_t rows, int64_t panel, int num_panels,
                     float* scratch, float* c) {
  const int64_t c_stride = num_panels * kGemmPanel;
  scale_rows(c, rows * c_stride, output.scale);
  float* const sums = c + rows * c_stride;  // one panel at a time, for the adapters
  for (int i = 0; i < num_panels; ++i) {
    const int64_t o0 = (panel + i) * kGemmPanel, count = std::min(kGemmPanel, output.w.out_features() - o0);
    if (output.terms.empty()) {
      finish(table, output, c + i * kGemmPanel, c_stride, 0, rows, o0, count);
      continue;
    }
    for (int64_t t = 0; t < rows; ++t) std::memcpy(sums + t * kGemmPanel, c + t * c_stride + i * kGemmPanel, kGemmPanel * sizeof(float));
    add_terms(table, output, 0, rows, o0, count, scratch, sums);
    finish(table, output, sums, kGemmPanel, 0, rows, o0, count);
  }
}

// Few rows against several panels at once: the weights are read once, from memory, 16-bit ones widened on the way.
void task_panels(const GemmTable& table, const Rows& x, int64_t in, const MatmulOutput<float>& output, int64_t rows, int64_t panel,
                 int num_panels, float* scratch) {
  float* const c = scratch + kBlockFloats;
  const Weight& w = *output.w.weight;
  if (in == 0) std::fill_n(c, rows * num_panels * kGemmPanel, 0.0f);
  for (int64_t k0 = 0; k0 < in; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, in - k0);
    if (w.type() == DType::kF32) {
      const float* from = static_cast<const float*>(w.data()) + (panel * 2 * in + k0) * 32;
      table.panels_f32(static_cast<int>(rows), 2 * num_panels, x.data + k0, x.stride, from, in * 32, n, c, k0 > 0);
    } else {
      table.panels(static_cast<int>(rows), num_panels, w.type() == DType::kBF16, x.data + k0, x.stride, pairs_at(w, panel, k0 / 2),
                   (in + 1) / 2 * kGemmPanel, n, c, k0 > 0);
    }
  }
  epilogue_panels(table, output, rows, panel, num_panels, scratch, c);
}

// Rows of x packed into shared memory as f32, rounded to bf16 where asked for.
void pack_f32(Context& context, View<const float, 2> x, int64_t row_begin, int64_t rows, bool rounded, int64_t stride) {
  float* const packed = context.shared<float>();
  const int64_t in = x.extent(1);
  context.pool().parallel(ceil_div(rows, 16), [&](int64_t task, int) {
    for (int64_t t = task * 16; t < std::min(rows, task * 16 + 16); ++t) {
      std::copy_n(x.row(row_begin + t), in, packed + t * stride);
      if (rounded) round_to_bf16(packed + t * stride, in);
    }
  });
}

// The same as bf16 pairs, padded with zeros.
void pack_pairs(Context& context, const DotTable& dot, View<const float, 2> x, int64_t row_begin, int64_t rows, int64_t stride) {
  auto* const packed = context.shared<uint16_t>();
  const int64_t in = x.extent(1);
  context.pool().parallel(ceil_div(rows, 16), [&](int64_t task, int) {
    for (int64_t t = task * 16; t < std::min(rows, task * 16 + 16); ++t) {
      uint16_t* to = packed + t * 2 * stride;
      dot.round_row(x.row(row_begin + t), in, to);
      std::fill(to + in, to + 2 * stride, uint16_t{0});
    }
  });
}

const DotTable* dot_table(Compute compute) {
  if (compute != Compute::kBF16) return nullptr;
  switch (cpu_level()) {
    case CpuLevel::kAmx:
      return gemm_amx();
    case CpuLevel::kAvx512Bf16:
      return gemm_avx512bf16();
    default:
      return nullptr;
  }
}

bool enough_scratch(Context& context, int64_t rows, int64_t summed, int64_t outputs) {
  const ScratchNeed need = matmul_scratch(context.num_threads(), rows, summed, outputs), have = context.reserved();
  const bool enough = have.shared >= need.shared && have.per_worker >= need.per_worker;
  assert(enough && "Context::reserve(matmul_scratch(...)) is missing");
  return enough;
}

// y = x W^T by bf16 dot products: one task; x begins at row `row` of y.
void task_nt_dot(const GemmTable& table, const DotTable& dot, const uint32_t* x, int64_t stride, int64_t in,
                 const MatmulOutput<float>& output, int64_t row, int64_t rows, int64_t o0, float* scratch) {
  float* const c = scratch + 2 * kBlockFloats;
  const int64_t count = std::min(kGemmPanel, output.w.out_features() - o0);
  // bf16 panels lie in memory as they are multiplied, but for an end that AMX reads beyond.
  const int64_t all_pairs = (in + 1) / 2, whole = stored_as(output.w, DType::kBF16) ? all_pairs / dot.pair_multiple * dot.pair_multiple : 0;
  const auto run = [&](const uint32_t* b, int64_t pair, int64_t num_pairs, bool resume) {
    for_each_tile(rows, dot.tile_rows, [&](int64_t t, int height) {
      dot.tile(height, static_cast<int>(count), x + t * stride + pair, stride, b, num_pairs, c + t * kGemmPanel, kGemmPanel, resume);
    });
  };
  if (all_pairs == 0) std::fill_n(c, rows * kGemmPanel, 0.0f);
  if (whole > 0) run(pairs_at(*output.w.weight, o0 / kGemmPanel, 0), 0, whole, false);
  auto* const pairs = reinterpret_cast<uint32_t*>(scratch + kBlockFloats);
  for (int64_t pair = whole; pair < all_pairs; pair += kGemmBlock / 2) {
    const int64_t n = std::min(kGemmBlock / 2, all_pairs - pair), padded = ceil_div(n, dot.pair_multiple) * dot.pair_multiple;
    if (stored_as(output.w, DType::kBF16)) {
      std::memcpy(pairs, pairs_at(*output.w.weight, o0 / kGemmPanel, pair), static_cast<size_t>(n * kGemmPanel) * 4);
    } else {
      const int64_t k = std::min(2 * n, in - 2 * pair);
      const Block b = block_nt(table, output.w, o0, count, 2 * pair, k, false, scratch);
      const float* block = b.data;
      if (b.half != 32) {  // f32 panels: bring the halves together
        for (int64_t i = 0; i < k; ++i) {
          std::memcpy(scratch + i * kGemmPanel, b.data + i * 32, 128);
          if (count > 32) std::memcpy(scratch + i * kGemmPanel + 32, b.data + b.half + i * 32, 128);
        }
        block = scratch;
      }
      dot.round_block(block, k, pairs);
    }
    std::fill(pairs + n * kGemmPanel, pairs + padded * kGemmPanel, 0u);
    run(pairs, pair, padded, pair > 0);
  }
  epilogue(table, output, row, rows, o0, count, scratch, c);
}

// dx = dy W by bf16 dot products: one source of one task, sums into c.
void sum_nn_dot(const GemmTable& table, const DotTable& dot, const uint32_t* dy, int64_t stride, const Operand<float>& w, int64_t rows,
                int64_t k0, int64_t count, int64_t columns, int64_t next_block, float* scratch, float* c) {
  auto* const pairs = reinterpret_cast<uint32_t*>(scratch + kBlockFloats);
  const int64_t out = w.out_features();
  if (out == 0) std::fill_n(c, rows * kGemmPanel, 0.0f);
  for (int64_t o0 = 0; o0 < out; o0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, out - o0), num_pairs = (n + 1) / 2;
    const int64_t padded = ceil_div(num_pairs, dot.pair_multiple) * dot.pair_multiple;
    if (stored_as(w, DType::kBF16)) {
      for (int64_t o = 0; o < n; o += kGemmPanel) {
        dot.transpose(pairs_at(*w.weight, (o0 + o) / kGemmPanel, k0 / 2), std::min(kGemmPanel, n - o), (count + 1) / 2,
                      pairs + o / 2 * kGemmPanel);
      }
    } else {
      block_nn(table, w, o0, n, k0, count, false, scratch);
      dot.round_block(scratch, n, pairs);
    }
    std::fill(pairs + num_pairs * kGemmPanel, pairs + padded * kGemmPanel, 0u);
    const bool last = o0 + n == out;
    const int64_t next_o = last ? 0 : o0 + n, next_k = last ? k0 + next_block * kGemmPanel : k0;
    Ahead ahead = ahead_nn(w, next_o, std::min(kGemmBlock, out - next_o), next_k, std::min(kGemmPanel, columns - next_k));
    const int64_t tiles = ceil_div(rows, dot.tile_rows);
    for_each_tile(rows, dot.tile_rows, [&](int64_t t, int height) {
      ahead.portion(tiles);
      dot.tile(height, static_cast<int>(count), dy + t * stride + o0 / 2, stride, pairs, padded, c + t * kGemmPanel, kGemmPanel, o0 > 0);
    });
  }
}

}  // namespace

ScratchNeed matmul_scratch(int, int64_t rows, int64_t in_features, int64_t out_features) {
  const int64_t row_bytes = packed_row_bytes(std::max(in_features, out_features) * static_cast<int64_t>(sizeof(float)));
  const int64_t shared = std::min(rows * row_bytes, std::max(kPackBytes, kLeastPackedRows * row_bytes));
  const int64_t row_block = std::min(kMaxRowBlock, std::max<int64_t>(5 * kGemmTileRows, ceil_div(rows, kGemmTileRows) * kGemmTileRows));
  return {static_cast<size_t>(shared), static_cast<size_t>((2 * kBlockFloats + row_block * kGemmPanel) * 4)};
}

bool blocked_nt(Context& context, Compute compute, View<const float, 2> x, std::span<const MatmulOutput<float>> outputs) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || x.stride(1) != 1) return false;
  const int64_t rows = x.extent(0), in = x.extent(1);
  int64_t widest = 0, column_blocks = 0;
  for (const MatmulOutput<float>& output : outputs) {
    if (output.y.stride(1) != 1 || (output.residual.data() != nullptr && output.residual.stride(1) != 1)) return false;
    for (const LoraTerm<float>& term : output.terms) {
      if (term.h.stride(1) != 1) return false;
    }
    if (output.w.weight != nullptr && output.w.weight->type() == DType::kF64) return false;
    widest = std::max(widest, output.w.out_features());
    column_blocks += ceil_div(output.w.out_features(), kGemmPanel);
  }
  if (rows == 0 || column_blocks == 0) return true;
  if (!enough_scratch(context, rows, in, widest)) return false;

  const DotTable* dot = dot_table(compute);
  const bool rounded = compute == Compute::kBF16;
  const bool packed = rounded || (rows > kGemmTileRows && rows_collide(x.stride(0)));
  const int64_t row_bytes = packed_row_bytes(in * (dot != nullptr ? 2 : 4));
  const int64_t pass_rows = packed ? packed_rows_at_once(rows, row_bytes) : rows;
  // How many panels a task takes at once where there are few rows; 0: the task works on one block of outputs by row tiles.
  const auto group_of = [&](const MatmulOutput<float>& output) -> int64_t {
    if (rows > kGemmTileRows || output.w.weight == nullptr) return 0;
    const int height = static_cast<int>(rows);
    int64_t group = 0;
    if (dot != nullptr) {
      group = stored_as(output.w, DType::kBF16) && dot->panels != nullptr && in > 0 ? dot->panels_at_once(height) : 0;
      if (group == 1) group = 0;
    } else if (stored_as(output.w, DType::kF32)) {
      group = rounded ? 0 : table->panels_f32_at_once(height) / 2;
    } else {
      group = rounded && stored_as(output.w, DType::kF16) ? 0 : table->panels_at_once(height);
    }
    // Not where it would leave a thread idle.
    if (group > 1 && column_blocks < 2 * group * context.num_threads()) group = dot != nullptr ? 0 : 1;
    return group;
  };
  const auto tasks_of = [&](const MatmulOutput<float>& output, const Split& split) {
    const int64_t blocks = ceil_div(output.w.out_features(), kGemmPanel), group = group_of(output);
    return group > 0 ? ceil_div(blocks, group) : blocks * split.count;
  };

  for (int64_t pass = 0; pass < rows; pass += pass_rows) {
    const int64_t now = std::min(pass_rows, rows - pass);
    Rows a = {x.row(pass), x.stride(0)};
    if (dot != nullptr) {
      pack_pairs(context, *dot, x, pass, now, row_bytes / 4);
    } else if (packed) {
      pack_f32(context, x, pass, now, rounded, row_bytes / 4);
      a = {context.shared<float>(), row_bytes / 4};
    }
    const Split split = split_rows(now, column_blocks, context.num_threads(), kGemmTileRows);
    int64_t tasks = 0;
    for (const MatmulOutput<float>& output : outputs) tasks += tasks_of(output, split);
    const int64_t stride = row_bytes / 4;  // of packed rows
    const auto run_block = [&](const MatmulOutput<float>& output, int64_t block, int64_t row, int64_t height, int64_t next, float* scratch) {
      if (dot != nullptr) {
        task_nt_dot(*table, *dot, context.shared<uint32_t>() + row * stride, stride, in, output, pass + row, height, block * kGemmPanel,
                    scratch);
      } else {
        task_nt(*table, rounded, {a.data + row * a.stride, a.stride}, in, output, pass + row, height, block * kGemmPanel, next, scratch);
      }
    };
    context.pool().parallel(tasks, [&](int64_t task, int worker) {
      float* const scratch = context.worker<float>(worker);
      for (const MatmulOutput<float>& output : outputs) {
        const int64_t blocks = ceil_div(output.w.out_features(), kGemmPanel), group = group_of(output), count = tasks_of(output, split);
        if (task >= count) {
          task -= count;
          continue;
        }
        if (group > 0) {
          const int64_t first = task * group, last = std::min(blocks, first + group);
          // f32 panels are 32 wide: the second half of the last block may not exist.
          const bool halves = !stored_as(output.w, DType::kF32) || last * kGemmPanel - output.w.out_features() < 32;
          if (last - first < group || !halves) {
            for (int64_t block = first; block < last; ++block) run_block(output, block, 0, rows, 0, scratch);
          } else if (dot != nullptr) {
            float* const c = scratch + 2 * kBlockFloats;
            dot->panels(static_cast<int>(rows), context.shared<uint32_t>(), stride, pairs_at(*output.w.weight, first, 0),
                        (in + 1) / 2 * kGemmPanel, (in + 1) / 2, c);
            epilogue_panels(*table, output, rows, first, static_cast<int>(group), scratch, c);
          } else {
            task_panels(*table, a, in, output, rows, first, static_cast<int>(group), scratch);
          }
          return;
        }
        // Neighbouring tasks share a block of W, so that it is in the cache for the second thread.
        const int64_t block = task / split.count, row = split.begin(task % split.count), height = split.end(task % split.count) - row;
        run_block(output, block, row, height, split.count == 1 ? context.num_threads() : 0, scratch);
        return;
      }
    });
  }
  return true;
}

bool blocked_nn(Context& context, Compute compute, std::span<const MatmulSource<float>> sources, bool accumulate,
                View<float, 2> dx) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || dx.stride(1) != 1) return false;
  const int64_t rows = dx.extent(0), columns = dx.extent(1);
  int64_t longest = 0;
  for (const MatmulSource<float>& source : sources) {
    if (source.dy.stride(1) != 1 || (source.w.weight != nullptr && source.w.weight->type() == DType::kF64)) return false;
    longest = std::max(longest, source.dy.extent(1));
  }
  if (rows == 0 || columns == 0) return true;
  if (!enough_scratch(context, rows, longest, columns)) return false;

  const DotTable* dot = dot_table(compute);
  const bool rounded = compute == Compute::kBF16;
  const int64_t blocks = ceil_div(columns, kGemmPanel);
  bool add = accumulate;
  for (const MatmulSource<float>& source : sources) {
    const int64_t out = source.dy.extent(1);
    const bool packed = rounded || (rows > kGemmTileRows && rows_collide(source.dy.stride(0)));
    const int64_t row_bytes = packed_row_bytes(out * (dot != nullptr ? 2 : 4));
    const int64_t pass_rows = packed ? packed_rows_at_once(rows, row_bytes) : rows;
    for (int64_t pass = 0; pass < rows; pass += pass_rows) {
      const int64_t now = std::min(pass_rows, rows - pass);
      Rows a = {source.dy.row(pass), source.dy.stride(0)};
      if (dot != nullptr) {
        pack_pairs(context, *dot, source.dy, pass, now, row_bytes / 4);
      } else if (packed) {
        pack_f32(context, source.dy, pass, now, rounded, row_bytes / 4);
        a = {context.shared<float>(), row_bytes / 4};
      }
      const Split split = split_rows(now, blocks, context.num_threads(), kGemmTileRows);
      context.pool().parallel(blocks * split.count, [&](int64_t task, int worker) {
        float* const scratch = context.worker<float>(worker);
        float* const c = scratch + 2 * kBlockFloats;
        const int64_t k0 = task / split.count * kGemmPanel, count = std::min(kGemmPanel, columns - k0);
        const int64_t row = split.begin(task % split.count), height = split.end(task % split.count) - row;
        const int64_t next_block = split.count == 1 ? context.num_threads() : 0;  // where this thread's next task probably lies
        if (dot != nullptr) {
          const uint32_t* dy = context.shared<uint32_t>() + row * (row_bytes / 4);
          sum_nn_dot(*table, *dot, dy, row_bytes / 4, source.w, height, k0, count, columns, next_block, scratch, c);
        } else {
          if (out == 0) std::fill_n(c, height * kGemmPanel, 0.0f);
          for (int64_t o0 = 0; o0 < out; o0 += kGemmBlock) {
            const int64_t n = std::min(kGemmBlock, out - o0);
            block_nn(*table, source.w, o0, n, k0, count, rounded, scratch);
            const bool last = o0 + n == out;
            const int64_t next_o = last ? 0 : o0 + n, next_k = last ? k0 + next_block * kGemmPanel : k0;
            multiply(*table, {a.data + row * a.stride + o0, a.stride}, height, ceil_div(count, 16) * 16, {scratch, kGemmPanel, 32}, n, c,
                     o0 > 0, ahead_nn(source.w, next_o, std::min(kGemmBlock, out - next_o), next_k, std::min(kGemmPanel, columns - next_k)));
          }
        }
        float* const to = dx.row(pass + row) + k0;
        table->finish(c, kGemmPanel, height, count, 1.0f, nullptr, add ? to : nullptr, dx.stride(0), to, dx.stride(0));
      });
    }
    add = true;
  }
  return true;
}

bool blocked_tn(Context& context, View<const float, 2> a, View<const float, 2> b, float scale, bool accumulate,
                View<float, 2> dw) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || a.stride(1) != 1 || b.stride(1) != 1 || dw.stride(1) != 1) return false;
  const int64_t tokens = a.extent(0), rows = dw.extent(0), columns = dw.extent(1);
  if (rows == 0 || columns == 0) return true;
  if (tokens == 0) return false;  // the reference writes the zeros
  if (!enough_scratch(context, 0, columns, rows)) return false;

  const int64_t blocks = ceil_div(columns, kGemmPanel);
  const Split split = split_rows(rows, blocks, context.num_threads(), kGemmTileRows);
  context.pool().parallel(blocks * split.count, [&](int64_t task, int worker) {
    float* const scratch = context.worker<float>(worker);
    float* const c = scratch + kBlockFloats;  // one tile
    const int64_t k0 = task / split.count * kGemmPanel, count = std::min(kGemmPanel, columns - k0), lanes = ceil_div(count, 16) * 16;
    const int64_t row = split.begin(task % split.count), height = split.end(task % split.count) - row;
    for (int64_t t0 = 0; t0 < tokens; t0 += kGemmBlock) {
      const int64_t n = std::min(kGemmBlock, tokens - t0);
      for (int64_t t = 0; t < n; ++t) {
        std::memcpy(scratch + t * kGemmPanel, b.row(t0 + t) + k0, static_cast<size_t>(count) * sizeof(float));
      }
      for_each_tile(height, kGemmTileRows, [&](int64_t i, int tile_rows) {
        for (int64_t j = 0; j < lanes; j += 32) {
          table->tile_transposed(tile_rows, lanes - j > 16 ? 32 : 16, a.row(t0) + row + i, a.stride(0), scratch + j, kGemmPanel, n, c + j,
                                 kGemmPanel, false);
        }
        float* const to = dw.row(row + i) + k0;
        table->finish(c, kGemmPanel, tile_rows, count, scale, nullptr, t0 > 0 || accumulate ? to : nullptr, dw.stride(0), to,
                      dw.stride(0));
      });
    }
  });
  return true;
}

bool blocked_dora(Context& context, const Operand<float>& w, View<const float, 2> a, View<const float, 2> b, float scaling,
                  std::span<float> norm, View<float, 2> merged) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || a.stride(1) != 1 || b.stride(1) != 1 || (merged.data() != nullptr && merged.stride(1) != 1)) return false;
  if (w.weight != nullptr && w.weight->type() == DType::kF64) return false;
  const int64_t out = w.out_features(), in = a.extent(1), rank = a.extent(0);
  context.pool().parallel(ceil_div(out, kGemmPanel), [&](int64_t task, int) {
    constexpr int64_t kSize = kGemmPanel * kGemmPanel;
    alignas(64) float value[kSize], update[kSize], squares[kSize], block[kGemmBlock * kGemmPanel];  // 176 KB of stack
    float blocks[kGemmPanel][64] = {};
    const int64_t row = task * kGemmPanel, rows = std::min(kGemmPanel, out - row);
    std::fill_n(squares, kSize, 0.0f);
    const auto tree = [](float* lanes) {
      for (int64_t half = 32; half > 0; half /= 2) {
        for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
      }
      return lanes[0];
    };
    for (int64_t k0 = 0; k0 < in; k0 += kGemmPanel) {
      const int64_t n = std::min(kGemmPanel, in - k0);
      block_nn(*table, w, row, rows, k0, n, false, value);
      for (int64_t r0 = 0; r0 < rank; r0 += kGemmBlock) {
        const int64_t count = std::min(kGemmBlock, rank - r0);
        for (int64_t r = 0; r < count; ++r) std::copy_n(a.row(r0 + r) + k0, n, block + r * kGemmPanel);
        multiply(*table, {b.row(row) + r0, b.stride(0)}, rows, ceil_div(n, 16) * 16, {block, kGemmPanel, 32}, count, update, r0 > 0);
      }
      float* const to = merged.data() == nullptr ? nullptr : merged.row(row) + k0;
      table->dora_block(value, rank > 0 ? update : nullptr, rows, n, scaling, squares, to, merged.stride(0));
      if ((k0 + n) % 4096 == 0 && in > 4096) {
        for (int64_t i = 0; i < rows; ++i) blocks[i][k0 / 4096 % 64] += tree(squares + i * kGemmPanel);
        std::fill_n(squares, kSize, 0.0f);
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      float sum = 0;
      if (in <= 4096) {
        sum = tree(squares + i * kGemmPanel);
      } else {
        if (in % 4096 != 0) blocks[i][in / 4096 % 64] += tree(squares + i * kGemmPanel);
        sum = tree(blocks[i]);
      }
      norm[static_cast<size_t>(row + i)] = std::sqrt(sum);
    }
  });
  return true;
}

}  // namespace graft
