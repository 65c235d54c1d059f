#pragma once

// What the blocked drivers share: how rows and columns are cut, how x is packed, how a block of W is laid into a
// worker's scratch.

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "graft/kernels/gemm_table.h"

namespace graft::blocked {

constexpr int64_t kMaxRowBlock =
    768;  // rows of a task: their partial sums (192 KB) and a block of B (128 KB) stay in L2
constexpr int64_t kBlockFloats = kGemmBlock * kGemmPanel;
constexpr int64_t kPackBytes = int64_t{8} << 20;  // packed x at a time
constexpr int64_t kLeastPackedRows = 64;
constexpr int kTasksPerThread = 4;  // enough for a late thread to catch up

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes between packed rows: an odd number of cache lines, so that the rows of a tile never share an L1 set.
inline int64_t packed_row_bytes(int64_t bytes) { return (ceil_div(bytes, 64) | 1) * 64; }
inline int64_t packed_rows_at_once(int64_t rows, int64_t row_bytes) {
  return std::min(rows, std::max(kLeastPackedRows, kPackBytes / row_bytes));
}

// Rows whose distance is near a power of two meet in the same few sets of an 8-way, 64-set L1.
inline bool rows_collide(int64_t stride) {
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
inline Split split_rows(int64_t rows, int64_t column_blocks, int threads, int64_t tile_rows) {
  const int64_t wanted =
      threads == 1 ? 1 : ceil_div(int64_t{kTasksPerThread} * threads, std::max<int64_t>(1, column_blocks));
  const int64_t blocks = std::max(ceil_div(rows, kMaxRowBlock), std::min(wanted, ceil_div(rows, 2 * tile_rows)));
  const int64_t block =
      blocks == 0 ? 1 : std::min(kMaxRowBlock, ceil_div(ceil_div(rows, blocks), tile_rows) * tile_rows);
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

// Memory that the next block of B will be made from, asked for in small portions between the tiles of this one:
// `chunks` pieces of `bytes`, `stride` bytes apart, into L2.
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

inline int64_t lanes_of(int64_t count) { return ceil_div(count, 8) * 8; }  // multiplied for `count` outputs

// Rows of which a tile will write (or read) some entries, asked for before: a core waits for lines that it stores to.
struct Touched {
  const float* data = nullptr;
  int64_t stride = 0, floats = 0;
  template <int kWrite = 1, int kLocality = 3>
  void ask(int64_t first, int64_t count) const {
    if (data == nullptr) return;
    for (int64_t i = first; i < first + count; ++i) {
      for (int64_t j = 0; j < floats; j += 16) __builtin_prefetch(data + i * stride + j, kWrite, kLocality);
    }
  }
};

// Where sums go: a worker's scratch, [rows][64], or the rows of the result, where nothing is left to be done to them.
struct Sums {
  float* data;
  int64_t stride;
  Sums(float* c, int64_t row_stride = kGemmPanel) : data(c), stride(row_stride) {}
};
// Whole lanes are multiplied: a result takes them only where it has as many columns.
inline bool whole_lanes(int64_t count) { return count % 8 == 0; }

// Sums of `rows` rows of x, tile_rows at a time, by a block of B into c, or onto it. after(row, count) follows each tile,
// while its sums are in the L1 cache.
template <typename After>
void multiply(const GemmTable& table, const Rows& x, int64_t rows, int64_t tile_rows, int64_t lanes, const Block& b,
              int64_t n, const Sums& c, bool add, Ahead ahead, const Touched& touched, After&& after) {
  const int64_t tiles = ceil_div(rows, tile_rows);
  for_each_tile(rows, tile_rows, [&](int64_t row, int count) {
    ahead.portion(tiles);
    touched.ask(row, count);
    if (tile_rows < kGemmTileRows) {  // rows far apart, read once: no hardware prefetcher follows them
      const Touched next = {x.data, x.stride, n};
      next.ask<0, 2>(row + count, std::min<int64_t>(count, rows - row - count));
    }
    for (int64_t j = 0; j < lanes; j += 32) {
      table.tile(count, static_cast<int>(std::min<int64_t>(32, lanes - j)), x.data + row * x.stride, x.stride,
                 b.data + j / 32 * b.half, b.stride, n, c.data + row * c.stride + j, c.stride,
                 add ? GemmSums::kAdd : GemmSums::kWrite);
    }
    after(row, count);
  });
}
inline void multiply(const GemmTable& table, const Rows& x, int64_t rows, int64_t lanes, const Block& b, int64_t n,
                     const Sums& c, bool add) {
  multiply(table, x, rows, kGemmTileRows, lanes, b, n, c, add, {}, {}, [](int64_t, int) {});
}

// How a driver reads rows at distance `stride` for `blocks` blocks of outputs: rows that meet in few L1 sets are packed,
// but for one block (an adapter's thin product), where a copy would cost as much as the product: then fewer rows go together.
struct RowsPlan {
  bool packed;
  int64_t tile_rows;
};
inline RowsPlan plan_rows(int64_t rows, int64_t stride, int64_t blocks) {
  const bool collide = rows > kGemmTileRows && rows_collide(stride);
  return {collide && blocks > 1, collide && blocks == 1 ? kGemmTileRows / 2 : kGemmTileRows};
}

inline bool stored_as(const Operand<float>& w, DType type) { return w.weight != nullptr && w.weight->type() == type; }
inline bool is_16_bit(const Operand<float>& w) { return stored_as(w, DType::kBF16) || stored_as(w, DType::kF16); }

inline const uint32_t* pairs_at(const Weight& w, int64_t panel, int64_t pair) {
  return static_cast<const uint32_t*>(w.data()) + (panel * ((w.in_features() + 1) / 2) + pair) * kGemmPanel;
}

// B[k][o]: summed entries [k0, k0 + n), outputs [o0, o0 + count). Written to `scratch`, unless the weight lies in
// memory that way; plain rows with `stride` between entries, at least lanes_of(count).
Block block_nt(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t count, int64_t k0, int64_t n,
               bool rounded, float* scratch, int64_t stride = kGemmPanel);
// B[o][k]: summed entries are the outputs [o0, o0 + n), lanes the columns [k0, k0 + count); k0 and o0 are multiples of
// 64.
void block_nn(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count,
              bool rounded, float* scratch);
// The same where it lies, if it is laid out as a block already (an adapter's matrix), else written to `scratch`.
Block place_nn(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count,
               bool rounded, float* scratch);
// What block_nt and block_nn read for the block at (o0, k0).
Ahead ahead_nt(const Operand<float>& w, int64_t o0, int64_t k0, int64_t n);
Ahead ahead_nn(const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count);

// Rows of x packed into shared memory as f32, rounded to bf16 where asked for; or as bf16 pairs, padded with zeros.
void pack_f32(Context& context, View<const float, 2> x, int64_t row_begin, int64_t rows, bool rounded, int64_t stride);
void pack_pairs(Context& context, const DotTable& dot, View<const float, 2> x, int64_t row_begin, int64_t rows,
                int64_t stride);

void round_to_bf16(float* x, int64_t n);

const DotTable* dot_table(Compute compute);  // null: f32 arithmetic
bool enough_scratch(Context& context, int64_t rows, int64_t summed, int64_t outputs);

}  // namespace graft::blocked
