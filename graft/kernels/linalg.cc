#include "graft/kernels/linalg.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/linalg_table.h"
#include "graft/kernels/ref.h"

namespace graft {
namespace {

constexpr int64_t kTaskElements = 16384;               // entries of a matrix that one task reads
constexpr int64_t kFarElements = int64_t{3} << 18;     // a matrix of 3 MB
constexpr int64_t kStreamElements = int64_t{8} << 20;  // an output of 32 MB leaves the cache

const LinalgTable& table() noexcept {
  if (const LinalgTable* simd = linalg_simd()) return *simd;
  return pick_reference(linalg_ref(), linalg_fma_ref());
}

// f(begin, end) over `rows` rows of `row_size` elements, some rows a task; few stay on this thread, without the pool.
template <typename F>
void for_rows(Context& context, int64_t rows, int64_t row_size, F&& f) noexcept {
  const int64_t some = std::max<int64_t>(4, kTaskElements / std::max<int64_t>(1, row_size) / 4 * 4);
  if (rows <= some) {
    if (rows > 0) f(int64_t{0}, rows);
    return;
  }
  context.pool().parallel((rows + some - 1) / some,
                          [&](int64_t task, int) { f(task * some, std::min(rows, (task + 1) * some)); });
}

// Rows of X as they are solved, [m][n]: columns of B lie contiguous. The stride avoids powers of two.
int64_t solved_stride(int64_t n) noexcept { return (n + 15) / 16 * 16 + 16; }

}  // namespace

void matvec(Context& context, View<const float, 2> a, std::span<const float> x, std::span<float> y) noexcept {
  assert(a.extent(0) == static_cast<int64_t>(y.size()) && a.extent(1) == static_cast<int64_t>(x.size()));
  const LinalgTable& t = table();
  const int64_t n = a.extent(1);
  // Rows at once share the loads of x; from beyond a core's own cache one stream is read faster than several.
  const bool one_stream = n >= 512 && a.size() >= kFarElements;
  for_rows(context, a.extent(0), n, [&](int64_t begin, int64_t end) {
    const int64_t rows = one_stream ? 1 : end - begin;
    for (int64_t r = begin; r < end; r += rows) t.dots(a.row(r), a.stride(0), rows, x.data(), n, y.data() + r);
  });
}

void spmv_csr(Context& context, const CsrMatrix& a, std::span<const float> x, std::span<float> y) noexcept {
  assert(a.row_ptr.size() == y.size() + 1);
  const LinalgTable& t = table();
  const auto rows = static_cast<int64_t>(y.size()), entries = static_cast<int64_t>(a.values.size()) + rows;
  if (entries <= kTaskElements) return t.spmv(a, x.data(), 0, rows, y.data());
  // Task i takes the rows whose entries (and a unit for the row) begin in its share, so that full rows share with empty ones.
  const auto row_at = [&](int64_t share) {
    int64_t low = 0, high = rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (static_cast<int64_t>(a.row_ptr[static_cast<size_t>(middle)]) + middle < share) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  context.pool().parallel((entries + kTaskElements - 1) / kTaskElements, [&](int64_t task, int) {
    t.spmv(a, x.data(), row_at(task * kTaskElements), row_at((task + 1) * kTaskElements), y.data());
  });
}

ScratchNeed triangular_solve_scratch(int64_t n, int64_t m) {
  return {.shared = static_cast<size_t>((m + 1) * solved_stride(n)) * sizeof(float),
          .per_worker = static_cast<size_t>(kSolveBlock) * sizeof(float)};
}

void triangular_solve(Context& context, View<const float, 2> a, View<const float, 2> b, Triangle triangle,
                      View<float, 2> x) noexcept {
  const LinalgTable& t = table();
  const int64_t n = b.extent(0), m = b.extent(1), stride = solved_stride(n);
  assert(a.extent(0) == n && a.extent(1) == n);
  auto* const solved = context.shared<float>();
  for (int64_t i = 0; i < n; ++i) {
    const float* row = b.row(i);
    for (int64_t c = 0; c < m; ++c) solved[c * stride + i] = row[c];
  }
  const int64_t blocks = (n + kSolveBlock - 1) / kSolveBlock;
  // f(first row, rows, first and number of the entries of A that meet what is solved) for each block in order.
  const auto for_blocks = [&](auto&& f) {
    for (int64_t step = 0; step < blocks; ++step) {
      const int64_t row = (triangle.lower ? step : blocks - 1 - step) * kSolveBlock;
      const int64_t rows = std::min(kSolveBlock, n - row), after = row + rows;
      triangle.lower ? f(row, rows, int64_t{0}, row) : f(row, rows, after, n - after);
    }
  };
  const auto subtract = [&](int64_t row, int64_t rows, int64_t from, int64_t count, int64_t c, float* sums) {
    if (count == 0) return;
    t.dots(a.row(row) + from, a.stride(0), rows, solved + c * stride + from, count, sums);
    float* const to = solved + c * stride + row;
    for (int64_t i = 0; i < rows; ++i) to[i] -= sums[i];
  };
  constexpr int64_t kColumns = 4;
  if (m >= kColumns * context.num_threads()) {  // columns are independent: no barrier between blocks
    context.pool().parallel((m + kColumns - 1) / kColumns, [&](int64_t task, int worker) {
      const int64_t first = task * kColumns, count = std::min(kColumns, m - first);
      for_blocks([&](int64_t row, int64_t rows, int64_t from, int64_t entries) {
        for (int64_t c = first; c < first + count; ++c) {
          subtract(row, rows, from, entries, c, context.worker<float>(worker));
        }
        t.solve_block(a.row(row) + row, a.stride(0), rows, triangle, solved + first * stride + row, stride, count);
      });
    });
  } else {
    for_blocks([&](int64_t row, int64_t rows, int64_t from, int64_t entries) {
      constexpr int64_t kRows = 8;
      const int64_t parts = (rows + kRows - 1) / kRows;
      const auto part = [&](int64_t task, int worker) {
        const int64_t begin = task % parts * kRows;
        subtract(row + begin, std::min(kRows, rows - begin), from, entries, task / parts,
                 context.worker<float>(worker));
      };
      if (rows * entries * m <= 4 * kTaskElements) {
        for (int64_t i = 0; i < parts * m; ++i) part(i, 0);
      } else {
        context.pool().parallel(parts * m, part);
      }
      t.solve_block(a.row(row) + row, a.stride(0), rows, triangle, solved + row, stride, m);
    });
  }
  for (int64_t i = 0; i < n; ++i) {
    float* row = x.row(i);
    for (int64_t c = 0; c < m; ++c) row[c] = solved[c * stride + i];
  }
}

void outer_product(Context& context, std::span<const float> u, std::span<const float> v, View<float, 2> y) noexcept {
  assert(y.extent(0) == static_cast<int64_t>(u.size()) && y.extent(1) == static_cast<int64_t>(v.size()));
  const LinalgTable& t = table();
  const auto columns = static_cast<int64_t>(v.size());
  const bool stream = y.size() >= kStreamElements;
  for_rows(context, y.extent(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) t.outer_row(u[static_cast<size_t>(i)], v.data(), y.row(i), columns, stream);
  });
}

}  // namespace graft
