// dx = dy W, dw = a^T b and DoRA's norms, by blocks as in gemm_nt.cc.

#include <cmath>
#include <cstring>

#include "graft/kernels/gemm_blocks.h"

namespace graft {
namespace {

using namespace blocked;

// dx = dy W by bf16 dot products: one source of one task, sums into c; after(row, count) follows each tile of the last block.
template <typename After>
void sum_nn_dot(const GemmTable& table, const DotTable& dot, const uint32_t* dy, int64_t stride,
                const Operand<float>& w, int64_t rows, int64_t k0, int64_t count, int64_t columns, int64_t next_block,
                float* scratch, float* c, const Touched& dx, After&& after) {
  auto* const pairs = reinterpret_cast<uint32_t*>(scratch + kBlockFloats);
  const int64_t out = w.out_features();
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
    Ahead ahead =
        ahead_nn(w, next_o, std::min(kGemmBlock, out - next_o), next_k, std::min(kGemmPanel, columns - next_k));
    const int64_t tiles = ceil_div(rows, dot.tile_rows);
    for_each_tile(rows, dot.tile_rows, [&](int64_t t, int height) {
      ahead.portion(tiles);
      if (last) dx.ask(t, height);
      dot.tile(height, static_cast<int>(count), dy + t * stride + o0 / 2, stride, pairs, padded, c + t * kGemmPanel,
               kGemmPanel, o0 > 0);
      if (last) after(t, height);
    });
  }
}

// The same in f32.
template <typename After>
void sum_nn(const GemmTable& table, bool rounded, const Rows& dy, int64_t out, const Operand<float>& w, int64_t rows,
            int64_t tile_rows, int64_t k0, int64_t count, int64_t columns, int64_t next_block, float* scratch,
            const Sums& c, bool add, const Touched& dx, After&& after) {
  for (int64_t o0 = 0; o0 < out; o0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, out - o0);
    const Block b = place_nn(table, w, o0, n, k0, count, rounded, scratch);
    const bool last = o0 + n == out;
    const int64_t next_o = last ? 0 : o0 + n, next_k = last ? k0 + next_block * kGemmPanel : k0;
    multiply(table, {dy.data + o0, dy.stride}, rows, tile_rows, lanes_of(count), b, n, c, add || o0 > 0,
             ahead_nn(w, next_o, std::min(kGemmBlock, out - next_o), next_k, std::min(kGemmPanel, columns - next_k)),
             last ? dx : Touched{}, [&](int64_t t, int height) {
               if (last) after(t, height);
             });
  }
}

constexpr int64_t kNarrowRows = 512;  // of dw, a task: 2 KB of a row of a
constexpr int64_t kNarrowTokens = 32;

// dw = a^T b for few columns (b is an adapter's h): lanes lie over the rows of dw, which are the columns of a. One task: rows
// [row, row + count <= 512) of dw. a is read once, some tokens at a time, while the sums wait.
void narrow_tn(const GemmTable& table, View<const float, 2> a, View<const float, 2> b, float scale, bool accumulate,
               View<float, 2> dw, int64_t row, int64_t count, float* scratch) {
  const int64_t tokens = a.extent(0), columns = dw.extent(1);
  const int64_t whole = count / 8 * 8;             // the rest is copied: memory may end beyond it
  float* const c = scratch;                        // [columns < 32][512]
  float* const rest = scratch + 32 * kNarrowRows;  // [tokens <= 32][8]
  float* const turned = rest + kNarrowTokens * 8;  // [64][columns]
  for (int64_t t0 = 0; t0 < tokens; t0 += kGemmBlock) {
    const int64_t end = std::min(tokens, t0 + kGemmBlock);
    for (int64_t t = t0; t < end; t += kNarrowTokens) {
      const int64_t n = std::min(kNarrowTokens, end - t);
      const GemmSums sums = t > t0 ? GemmSums::kResume : GemmSums::kWrite;
      for (int64_t i = 0; whole < count && i < n; ++i) {
        std::copy_n(a.row(t + i) + row + whole, count - whole, rest + i * 8);
      }
      for_each_tile(columns, kGemmTileRows, [&](int64_t j, int height) {
        const auto tile = [&](int64_t lane, int lanes, const float* from, int64_t stride) {
          table.tile_transposed(height, lanes, b.row(t) + j, b.stride(0), from, stride, n, c + j * kNarrowRows + lane,
                                kNarrowRows, sums);
        };
        for (int64_t i = 0; i < whole; i += 32) {
          tile(i, static_cast<int>(std::min<int64_t>(32, whole - i)), a.row(t) + row + i, a.stride(0));
        }
        if (whole < count) tile(whole, 8, rest, 8);
      });
    }
    for (int64_t i = 0; i < count; i += kGemmPanel) {
      const int64_t now = std::min(kGemmPanel, count - i);
      table.transpose_words(reinterpret_cast<const uint32_t*>(c + i), kNarrowRows, columns, now,
                            reinterpret_cast<uint32_t*>(turned), columns);
      float* const to = dw.row(row + i);
      table.finish(turned, columns, now, columns, scale, nullptr, t0 > 0 || accumulate ? to : nullptr, dw.stride(0), to,
                   dw.stride(0));
    }
  }
}

}  // namespace

bool blocked_nn(Context& context, Compute compute, std::span<const MatmulSource<float>> sources, bool accumulate,
                View<float, 2> dx) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || dx.stride(1) != 1) return false;
  const int64_t rows = dx.extent(0), columns = dx.extent(1);
  int64_t longest = 0;
  for (const MatmulSource<float>& source : sources) {
    if (source.dy.stride(1) != 1 || (source.w.weight != nullptr && source.w.weight->type() == DType::kF64)) {
      return false;
    }
    longest = std::max(longest, source.dy.extent(1));
  }
  if (rows == 0 || columns == 0) return true;
  if (!enough_scratch(context, rows, longest, columns)) return false;

  const DotTable* dot = dot_table(compute);
  const bool rounded = compute == Compute::kBF16;
  const int64_t blocks = ceil_div(columns, kGemmPanel);
  const auto packed = [&](const MatmulSource<float>& source) {
    return rounded || plan_rows(rows, source.dy.stride(0), blocks).packed;
  };
  for (size_t first = 0, last = 0; first < sources.size(); first = last) {
    // Sources that are read where they lie go together: dx stays in the cache, and the threads meet once.
    last = first + 1;
    const bool pack = packed(sources[first]);
    while (!pack && last < sources.size() && !packed(sources[last])) ++last;
    const View<const float, 2> dy = sources[first].dy;
    const int64_t row_bytes = packed_row_bytes(dy.extent(1) * (dot != nullptr ? 2 : 4));
    const int64_t pass_rows = pack ? packed_rows_at_once(rows, row_bytes) : rows;
    for (int64_t pass = 0; pass < rows; pass += pass_rows) {
      const int64_t now = std::min(pass_rows, rows - pass);
      if (dot != nullptr) {
        pack_pairs(context, *dot, dy, pass, now, row_bytes / 4);
      } else if (pack) {
        pack_f32(context, dy, pass, now, rounded, row_bytes / 4);
      }
      const Split split = split_rows(now, blocks, context.num_threads(), kGemmTileRows);
      context.pool().parallel(blocks * split.count, [&](int64_t task, int worker) {
        float* const scratch = context.worker<float>(worker);
        float* const c = scratch + 2 * kBlockFloats;
        const int64_t k0 = task / split.count * kGemmPanel, count = std::min(kGemmPanel, columns - k0);
        const int64_t row = split.begin(task % split.count), height = split.end(task % split.count) - row;
        const int64_t next_block =
            split.count == 1 ? context.num_threads() : 0;  // where this thread's next task probably lies
        for (size_t i = first; i < last; ++i) {
          const MatmulSource<float>& source = sources[i];
          const auto after = [&](int64_t t, int tile) {
            float* const to = dx.row(pass + row + t) + k0;
            table->finish(c + t * kGemmPanel, kGemmPanel, tile, count, 1.0f, nullptr,
                          accumulate || i > 0 ? to : nullptr, dx.stride(0), to, dx.stride(0));
          };
          const Touched touched = {dx.row(pass + row) + k0, dx.stride(0), count};
          if (source.dy.extent(1) == 0) {
            std::fill_n(c, height * kGemmPanel, 0.0f);
            after(0, static_cast<int>(height));
          } else if (dot != nullptr) {
            const uint32_t* from = context.shared<uint32_t>() + row * (row_bytes / 4);
            sum_nn_dot(*table, *dot, from, row_bytes / 4, source.w, height, k0, count, columns, next_block, scratch, c,
                       touched, after);
          } else {
            const Rows from = pack ? Rows{context.shared<float>() + row * (row_bytes / 4), row_bytes / 4}
                                   : Rows{source.dy.row(pass + row), source.dy.stride(0)};
            const int64_t tile_rows = plan_rows(rows, source.dy.stride(0), blocks).tile_rows;
            // Sums that begin a chain of their own, or are one, need no scratch: they are dx, or are added to it.
            const bool onto = accumulate || i > 0;
            const bool direct = whole_lanes(count) && (!onto || source.dy.extent(1) <= kGemmBlock);
            const Sums sums = direct ? Sums(dx.row(pass + row) + k0, dx.stride(0)) : Sums(c);
            sum_nn(*table, rounded, from, source.dy.extent(1), source.w, height, tile_rows, k0, count, columns,
                   next_block, scratch, sums, direct && onto, touched, [&](int64_t t, int tile) {
                     if (!direct) after(t, tile);
                   });
          }
        }
      });
    }
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

  if (columns < 32 && rows > columns) {
    const int64_t threads = context.num_threads();
    const int64_t height = std::min(kNarrowRows, ceil_div(ceil_div(rows, threads), kGemmPanel) * kGemmPanel);
    context.pool().parallel(ceil_div(rows, height), [&](int64_t task, int worker) {
      const int64_t row = task * height;
      narrow_tn(*table, a, b, scale, accumulate, dw, row, std::min(height, rows - row), context.worker<float>(worker));
    });
    return true;
  }
  const int64_t blocks = ceil_div(columns, kGemmPanel);
  const Split split = split_rows(rows, blocks, context.num_threads(), kGemmTileRows);
  context.pool().parallel(blocks * split.count, [&](int64_t task, int worker) {
    float* const scratch = context.worker<float>(worker);
    float* const c = scratch + kBlockFloats;  // one tile
    const int64_t k0 = task / split.count * kGemmPanel, count = std::min(kGemmPanel, columns - k0),
                  lanes = lanes_of(count);
    const int64_t row = split.begin(task % split.count), height = split.end(task % split.count) - row;
    const bool direct = scale == 1.0f && whole_lanes(count);
    for (int64_t t0 = 0; t0 < tokens; t0 += kGemmBlock) {
      const int64_t n = std::min(kGemmBlock, tokens - t0);
      // One tile reads each entry of b once: it need not be copied together, but for columns beyond which memory may end.
      Block block = {b.row(t0) + k0, b.stride(0), 32};
      if (height > kGemmTileRows || count < kGemmPanel) {
        for (int64_t t = 0; t < n; ++t) {
          std::memcpy(scratch + t * kGemmPanel, b.row(t0 + t) + k0, static_cast<size_t>(count) * sizeof(float));
        }
        block = {scratch, kGemmPanel, 32};
      }
      for_each_tile(height, kGemmTileRows, [&](int64_t i, int tile_rows) {
        float* const to = dw.row(row + i) + k0;
        const Sums sums = direct ? Sums(to, dw.stride(0)) : Sums(c);
        if (direct) Touched{to, dw.stride(0), count}.ask(0, tile_rows);
        for (int64_t j = 0; j < lanes; j += 32) {
          table->tile_transposed(tile_rows, static_cast<int>(std::min<int64_t>(32, lanes - j)), a.row(t0) + row + i,
                                 a.stride(0), block.data + j, block.stride, n, sums.data + j, sums.stride,
                                 direct && (t0 > 0 || accumulate) ? GemmSums::kAdd : GemmSums::kWrite);
        }
        if (direct) return;
        table->finish(c, kGemmPanel, tile_rows, count, scale, nullptr, t0 > 0 || accumulate ? to : nullptr,
                      dw.stride(0), to, dw.stride(0));
      });
    }
  });
  return true;
}

bool blocked_dora(Context& context, const Operand<float>& w, View<const float, 2> a, View<const float, 2> b,
                  float scaling, std::span<float> norm, View<float, 2> merged) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || a.stride(1) != 1 || b.stride(1) != 1 || (merged.data() != nullptr && merged.stride(1) != 1)) {
    return false;
  }
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
        multiply(*table, {b.row(row) + r0, b.stride(0)}, rows, ceil_div(n, 16) * 16, {block, kGemmPanel, 32}, count,
                 update, r0 > 0);
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
