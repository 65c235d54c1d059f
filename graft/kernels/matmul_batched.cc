// matmul_batched (linalg.h): many small products at once. The parts are training's (gemm_table.h); what differs is how the work is cut: over
// the batch first, with 32 columns of b in a worker's scratch, and sums that go straight to c.

#include <cassert>
#include <cstring>

#include "graft/kernels/gemm_blocks.h"
#include "graft/kernels/linalg.h"

namespace graft {
namespace {

using namespace blocked;

constexpr int64_t kPanel = 32;  // columns multiplied by one tile after the other: 16 KB of b for 128 rows
constexpr int64_t kWide = 128;  // columns of a task, if there are enough tasks: whole rows of b are read
constexpr int64_t kRows = 384;  // of a task at most: a block of a (768 KB) stays in L2

// A task of fewer flops costs more to hand out than it is worth.
constexpr int64_t kLeastFlops = int64_t{1} << 18;

// One by one, where rows of a meet in few sets of the first cache and have to be packed (gemm_blocks.h), or nothing is summed.
bool one_by_one(int64_t rows, int64_t summed, int64_t a_row, int64_t columns) {
  return summed == 0 || (rows_collide(a_row) && rows > kGemmTileRows && columns > kPanel);
}

struct Product {
  View<const float, 2> a, b;
  View<float, 2> c;
};

// Rows [row, row + rows), columns [j0, j0 + count) of c. scratch: panels [512][32] of b, then a tile of c. `ahead`: what the thread's
// next task reads.
void task(const GemmTable& table, const Product& p, int64_t row, int64_t rows, int64_t j0, int64_t count, Ahead* ahead,
          float* scratch) {
  const int64_t summed = p.a.extent(1), panels = ceil_div(count, kPanel);
  const int64_t portions = panels * ceil_div(rows, kGemmTileRows) * ceil_div(summed, kGemmBlock);
  float* const tile = scratch + kGemmBlock * kWide;
  for (int64_t k0 = 0; k0 < summed; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, summed - k0);
    const bool packed = rows > kGemmTileRows || count % 8 != 0;  // read more than once, or with lanes beyond its end
    for (int64_t k = 0; packed && k < n; ++k) {
      const float* from = p.b.row(k0 + k) + j0;
      for (int64_t panel = 0; panel < panels; ++panel) {
        float* to = scratch + (panel * n + k) * kPanel;
        const int64_t columns = count - panel * kPanel;
        if (columns >= kPanel) {
          std::memcpy(to, from + panel * kPanel, kPanel * sizeof(float));
        } else {
          std::copy_n(from + panel * kPanel, columns, to);
          std::fill(to + columns, to + lanes_of(columns), 0.0f);
        }
      }
    }
    const GemmSums sums = k0 == 0 ? GemmSums::kWrite : GemmSums::kAdd;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t j = j0 + panel * kPanel, columns = std::min(kPanel, count - panel * kPanel);
      const int lanes = static_cast<int>(lanes_of(columns));
      const float* const b = packed ? scratch + panel * n * kPanel : p.b.row(k0) + j;
      const int64_t b_stride = packed ? kPanel : p.b.stride(0);
      for_each_tile(rows, kGemmTileRows, [&](int64_t t, int height) {
        const float* a = p.a.row(row + t) + k0;
        float* const c = p.c.row(row + t) + j;
        for (Ahead* next = ahead; next != ahead + 3; ++next) next->portion(portions);
        if (columns == lanes) {
          table.tile(height, lanes, a, p.a.stride(0), b, b_stride, n, c, p.c.stride(0), sums);
        } else {
          table.tile(height, lanes, a, p.a.stride(0), b, b_stride, n, tile, kPanel, GemmSums::kWrite);
          table.finish(tile, kPanel, height, columns, 1.0f, nullptr, k0 == 0 ? nullptr : c, p.c.stride(0), c,
                       p.c.stride(0));
        }
      });
    }
  }
}

template <typename T>
View<T, 2> entry(View<T, 3> x, int64_t i) {
  return View<T, 2>(x.data() + i * x.stride(0), {x.extent(1), x.extent(2)}, {x.stride(1), x.stride(2)});
}

}  // namespace

ScratchNeed matmul_batched_scratch(int64_t rows, int64_t summed, int64_t columns) {
  ScratchNeed need{.per_worker = static_cast<size_t>(kGemmBlock * kWide + kGemmTileRows * kPanel) * sizeof(float)};
  need.merge(matmul_scratch(1, rows, summed, columns));  // for strides of a whose rows have to be packed
  return need;
}

void matmul_batched(Context& context, View<const float, 3> a, View<const float, 3> b, View<float, 3> c) noexcept {
  assert(a.extent(2) == b.extent(1) && a.stride(2) == 1 && b.stride(2) == 1 && c.stride(2) == 1);
  const int64_t batch = a.extent(0), rows = a.extent(1), summed = a.extent(2), columns = b.extent(2);
  if (batch == 0 || rows == 0 || columns == 0) return;
  const GemmTable* table = gemm_simd();
  if (table == nullptr || one_by_one(rows, summed, a.stride(1), columns)) {
    for (int64_t i = 0; i < batch; ++i) {
      const MatmulSource<float> source{entry(a, i), {nullptr, entry(b, i)}};
      matmul_nn<float>(context, Compute::kF32, {&source, 1}, false, entry(c, i));
    }
    return;
  }
  // Few tasks for the threads: they are narrower, and rows are cut too. Small products: some to a task.
  const int64_t threads = context.num_threads(), wanted = threads == 1 ? 1 : kTasksPerThread * threads;
  const int64_t width = batch * ceil_div(columns, kWide) * ceil_div(rows, kRows) < wanted ? kPanel : kWide;
  const int64_t blocks = ceil_div(columns, width), flops = 2 * rows * summed * std::min(columns, width);
  Split split = {rows, kRows, ceil_div(rows, kRows)};
  if (batch * blocks * split.count < wanted) {
    const int64_t height = ceil_div(ceil_div(rows, ceil_div(wanted, batch * blocks)), kGemmTileRows) * kGemmTileRows;
    split.block = std::min(kRows, std::max(height, int64_t{4} * kGemmTileRows));
    split.count = ceil_div(rows, split.block);
  }
  const int64_t parts = batch * blocks * split.count, together = std::max<int64_t>(1, kLeastFlops / flops);
  const bool whole = blocks == 1 && split.count == 1;  // a task is an entry: its neighbours are not in the cache yet
  context.pool().parallel(ceil_div(parts, together), [&](int64_t group, int worker) {
    for (int64_t part = group * together; part < std::min(parts, (group + 1) * together); ++part) {
      const int64_t i = part / (blocks * split.count), j0 = part / split.count % blocks * width,
                    row = split.begin(part % split.count);
      Ahead ahead[3];
      const int64_t next = i + (together == 1 ? threads : 1);
      if (whole && next < batch) {
        ahead[0] = Ahead(entry(a, next).data(), rows, summed * 4, a.stride(1) * 4);
        ahead[1] = Ahead(entry(b, next).data(), summed, columns * 4, b.stride(1) * 4);
        ahead[2] = Ahead(entry(c, next).data(), rows, columns * 4, c.stride(1) * 4);
      }
      task(*table, {entry(a, i), entry(b, i), entry(c, i)}, row, split.end(part % split.count) - row, j0,
           std::min(width, columns - j0), ahead, context.worker<float>(worker));
    }
  });
}

}  // namespace graft
