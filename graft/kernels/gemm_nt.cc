// y = x W^T: cuts the product into tasks of 64 outputs by some rows, lays blocks of W into each worker's scratch, calls
// the vector parts.

#include <cstring>

#include "graft/kernels/gemm_blocks.h"

namespace graft {
namespace {

using namespace blocked;

// The adapters' matrices for outputs [o0, o0 + count), laid one after the other into `scratch`: ranks of 512 together, or
// false.
bool lay_terms(const GemmTable& table, const MatmulOutput<float>& output, int64_t o0, int64_t count, float* scratch) {
  int64_t ranks = 0;
  for (const LoraTerm<float>& term : output.terms) ranks += term.b.extent(1);
  if (ranks > kGemmBlock) return false;
  for (const LoraTerm<float>& term : output.terms) {
    block_nt(table, {nullptr, term.b}, o0, count, 0, term.b.extent(1), false, scratch);
    scratch += term.b.extent(1) * kGemmPanel;
  }
  return true;
}

// Adds the adapters' updates to the sums c of rows [row_begin, row_begin + rows) and outputs [o0, o0 + count). `laid`: what
// lay_terms wrote; null: they are laid into `scratch` here.
void add_terms(const GemmTable& table, const MatmulOutput<float>& output, int64_t row_begin, int64_t rows, int64_t o0,
               int64_t count, const float* laid, float* scratch, float* c) {
  for (const LoraTerm<float>& term : output.terms) {
    const int64_t begin = std::max(row_begin, term.row_begin), end = std::min(row_begin + rows, term.row_end);
    const int64_t rank = term.b.extent(1);
    for (int64_t r0 = 0; r0 < rank && begin < end; r0 += kGemmBlock) {
      const int64_t n = std::min(kGemmBlock, rank - r0);
      const Block b = laid != nullptr ? Block{laid, kGemmPanel, 32}
                                      : block_nt(table, {nullptr, term.b}, o0, count, r0, n, false, scratch);
      const Rows h = {term.h.row(begin - term.row_begin) + r0, term.h.stride(0)};
      multiply(table, h, end - begin, lanes_of(count), b, n, c + (begin - row_begin) * kGemmPanel, true);
    }
    if (laid != nullptr) laid += rank * kGemmPanel;
  }
}

void finish(const GemmTable& table, const MatmulOutput<float>& output, float scale, const float* c, int64_t c_stride,
            int64_t row, int64_t rows, int64_t o0, int64_t count) {
  table.finish(c, c_stride, rows, count, scale, output.bias.empty() ? nullptr : output.bias.data() + o0,
               output.residual.data() == nullptr ? nullptr : output.residual.row(row) + o0, output.residual.stride(0),
               output.y.row(row) + o0, output.y.stride(0));
}

void scale_rows(float* c, int64_t n, float scale) {
  if (scale == 1.0f) return;
  for (int64_t i = 0; i < n; ++i) c[i] *= scale;
}

// Everything after the sums: scale, adapters, bias, residual.
void epilogue(const GemmTable& table, const MatmulOutput<float>& output, int64_t row, int64_t rows, int64_t o0,
              int64_t count, const float* laid, float* scratch, float* c) {
  if (output.terms.empty()) return finish(table, output, output.scale, c, kGemmPanel, row, rows, o0, count);
  scale_rows(c, rows * kGemmPanel, output.scale);
  add_terms(table, output, row, rows, o0, count, laid, scratch, c);
  finish(table, output, 1.0f, c, kGemmPanel, row, rows, o0, count);
}

// One task of y = x W^T in f32: x begins at row `row` of y.
// next_block: how many blocks of outputs further this thread's next task probably lies.
void task_nt(const GemmTable& table, bool rounded, const Rows& x, int64_t in, const MatmulOutput<float>& output,
             int64_t row, int64_t rows, int64_t tile_rows, int64_t o0, int64_t next_block, float* scratch) {
  float* const b_scratch = scratch;
  float* const laid = scratch + kBlockFloats;
  float* const c = scratch + 2 * kBlockFloats;
  const int64_t count = std::min(kGemmPanel, output.w.out_features() - o0), lanes = lanes_of(count);
  const bool by_tile = in > 0 && lay_terms(table, output, o0, count, laid);
  // Nothing follows the sums: they are y.
  const bool direct = in > 0 && output.terms.empty() && output.scale == 1.0f && output.bias.empty() &&
                      output.residual.data() == nullptr && whole_lanes(count);
  const Sums sums = direct ? Sums(output.y.row(row) + o0, output.y.stride(0)) : Sums(c);
  if (in == 0) std::fill_n(c, rows * kGemmPanel, 0.0f);
  for (int64_t k0 = 0; k0 < in; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, in - k0);
    const Block b = block_nt(table, output.w, o0, count, k0, n, rounded, b_scratch, lanes);
    const bool last = k0 + n == in;
    const int64_t next_k = last ? 0 : k0 + n, next_o = last ? o0 + next_block * kGemmPanel : o0;
    const Touched y = {last && by_tile ? output.y.row(row) + o0 : nullptr, output.y.stride(0), count};
    multiply(table, {x.data + k0, x.stride}, rows, tile_rows, lanes, b, n, sums, k0 > 0,
             ahead_nt(output.w, next_o, next_k, std::min(kGemmBlock, in - next_k)), y, [&](int64_t t, int height) {
               if (last && by_tile && !direct) {
                 epilogue(table, output, row + t, height, o0, count, laid, nullptr, c + t * kGemmPanel);
               }
             });
  }
  if (!by_tile) epilogue(table, output, row, rows, o0, count, nullptr, b_scratch, c);
}

// Everything after the sums c [rows][num_panels * 64] of few rows.
void epilogue_panels(const GemmTable& table, const MatmulOutput<float>& output, int64_t rows, int64_t panel,
                     int num_panels, float* scratch, float* c) {
  const int64_t c_stride = num_panels * kGemmPanel;
  float* const sums = c + rows * c_stride;  // one panel at a time, for the adapters
  for (int i = 0; i < num_panels; ++i) {
    const int64_t o0 = (panel + i) * kGemmPanel, count = std::min(kGemmPanel, output.w.out_features() - o0);
    if (output.terms.empty()) {
      finish(table, output, output.scale, c + i * kGemmPanel, c_stride, 0, rows, o0, count);
      continue;
    }
    for (int64_t t = 0; t < rows; ++t) {
      std::memcpy(sums + t * kGemmPanel, c + t * c_stride + i * kGemmPanel, kGemmPanel * sizeof(float));
    }
    epilogue(table, output, 0, rows, o0, count, nullptr, scratch, sums);
  }
}

// Few rows against several panels at once: the weights are read once, from memory, 16-bit ones widened on the way.
void task_panels(const GemmTable& table, const Rows& x, int64_t in, const MatmulOutput<float>& output, int64_t rows,
                 int64_t panel, int num_panels, float* scratch) {
  float* const c = scratch + kBlockFloats;
  const Weight& w = *output.w.weight;
  if (in == 0) std::fill_n(c, rows * num_panels * kGemmPanel, 0.0f);
  for (int64_t k0 = 0; k0 < in; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, in - k0);
    if (w.type() == DType::kF32) {
      const float* from = static_cast<const float*>(w.data()) + (panel * 2 * in + k0) * 32;
      table.panels_f32(static_cast<int>(rows), 2 * num_panels, x.data + k0, x.stride, from, in * 32, n, c, k0 > 0);
    } else {
      table.panels(static_cast<int>(rows), num_panels, w.type() == DType::kBF16, x.data + k0, x.stride,
                   pairs_at(w, panel, k0 / 2), (in + 1) / 2 * kGemmPanel, n, c, k0 > 0);
    }
  }
  epilogue_panels(table, output, rows, panel, num_panels, scratch, c);
}

// y = x W^T by bf16 dot products: one task; x begins at row `row` of y.
void task_nt_dot(const GemmTable& table, const DotTable& dot, const uint32_t* x, int64_t stride, int64_t in,
                 const MatmulOutput<float>& output, int64_t row, int64_t rows, int64_t o0, float* scratch) {
  float* const c = scratch + 2 * kBlockFloats;
  const int64_t count = std::min(kGemmPanel, output.w.out_features() - o0);
  // bf16 panels lie in memory as they are multiplied, but for an end that AMX reads beyond.
  const int64_t all_pairs = (in + 1) / 2,
                whole = stored_as(output.w, DType::kBF16) ? all_pairs / dot.pair_multiple * dot.pair_multiple : 0;
  bool by_tile = false;
  const auto run = [&](const uint32_t* b, int64_t pair, int64_t num_pairs, bool resume, bool last) {
    if (last) by_tile = lay_terms(table, output, o0, count, scratch);  // what was widened there is in `pairs` by now
    const Touched y = {by_tile ? output.y.row(row) + o0 : nullptr, output.y.stride(0), count};
    for_each_tile(rows, dot.tile_rows, [&](int64_t t, int height) {
      y.ask(t, height);
      dot.tile(height, static_cast<int>(count), x + t * stride + pair, stride, b, num_pairs, c + t * kGemmPanel,
               kGemmPanel, resume);
      if (by_tile) epilogue(table, output, row + t, height, o0, count, scratch, nullptr, c + t * kGemmPanel);
    });
  };
  if (all_pairs == 0) std::fill_n(c, rows * kGemmPanel, 0.0f);
  if (whole > 0) run(pairs_at(*output.w.weight, o0 / kGemmPanel, 0), 0, whole, false, whole == all_pairs);
  auto* const pairs = reinterpret_cast<uint32_t*>(scratch + kBlockFloats);
  for (int64_t pair = whole; pair < all_pairs; pair += kGemmBlock / 2) {
    const int64_t n = std::min(kGemmBlock / 2, all_pairs - pair),
                  padded = ceil_div(n, dot.pair_multiple) * dot.pair_multiple;
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
    run(pairs, pair, padded, pair > 0, pair + n == all_pairs);
  }
  if (!by_tile) epilogue(table, output, row, rows, o0, count, nullptr, scratch, c);
}

}  // namespace

bool blocked_nt(Context& context, Compute compute, View<const float, 2> x,
                std::span<const MatmulOutput<float>> outputs) noexcept {
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
  const RowsPlan rows_plan = plan_rows(rows, x.stride(0), column_blocks);
  const bool packed = rounded || rows_plan.packed;
  const int64_t row_bytes = packed_row_bytes(in * (dot != nullptr ? 2 : 4));
  const int64_t pass_rows = packed ? packed_rows_at_once(rows, row_bytes) : rows;
  // How many panels a task takes at once where there are few rows; 0: the task works on one block of outputs by row
  // tiles.
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
    const auto run_block = [&](const MatmulOutput<float>& output, int64_t block, int64_t row, int64_t height,
                               int64_t next, float* scratch) {
      if (dot != nullptr) {
        task_nt_dot(*table, *dot, context.shared<uint32_t>() + row * stride, stride, in, output, pass + row, height,
                    block * kGemmPanel, scratch);
      } else {
        task_nt(*table, rounded, {a.data + row * a.stride, a.stride}, in, output, pass + row, height,
                rows_plan.tile_rows, block * kGemmPanel, next, scratch);
      }
    };
    context.pool().parallel(tasks, [&](int64_t task, int worker) {
      float* const scratch = context.worker<float>(worker);
      for (const MatmulOutput<float>& output : outputs) {
        const int64_t blocks = ceil_div(output.w.out_features(), kGemmPanel), group = group_of(output),
                      count = tasks_of(output, split);
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
            dot->panels(static_cast<int>(rows), context.shared<uint32_t>(), stride,
                        pairs_at(*output.w.weight, first, 0), (in + 1) / 2 * kGemmPanel, (in + 1) / 2, c);
            epilogue_panels(*table, output, rows, first, static_cast<int>(group), scratch, c);
          } else {
            task_panels(*table, a, in, output, rows, first, static_cast<int>(group), scratch);
          }
          return;
        }
        // Neighbouring tasks share a block of W, so that it is in the cache for the second thread.
        const int64_t block = task / split.count, row = split.begin(task % split.count),
                      height = split.end(task % split.count) - row;
        run_block(output, block, row, height, split.count == 1 ? context.num_threads() : 0, scratch);
        return;
      }
    });
  }
  return true;
}

}  // namespace graft
