#include "graft/kernels/embedding.h"

#include <algorithm>

#include "graft/kernels/gemm_ref.h"

namespace graft {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kColumnsPerTask = 64;

int64_t chunks(int64_t rows) { return (rows + kRowsPerTask - 1) / kRowsPerTask; }

template <typename T>
void copy_row(const T* from, int64_t from_stride, int64_t n, T* to, int64_t to_stride) {
  if (from_stride == 1 && to_stride == 1) {
    std::copy_n(from, n, to);
  } else {
    for (int64_t j = 0; j < n; ++j) to[j * to_stride] = from[j * from_stride];
  }
}

}  // namespace

template <typename T>
void embedding(Context& context, std::span<const int32_t> ids, const Operand<T>& table, View<T, 2> y) noexcept {
  const auto tokens = static_cast<int64_t>(ids.size());
  const GemmRefTable<T>& kernels = gemm_ref<T>();
  context.pool().parallel(chunks(tokens), [&](int64_t task, int) {
    for (int64_t i = task * kRowsPerTask; i < std::min(tokens, (task + 1) * kRowsPerTask); ++i) {
      kernels.widen_row(table, ids[static_cast<size_t>(i)], 0, y.extent(1), y.row(i));
    }
  });
}

// A task owns some columns and takes the tokens in order: the sum of each id is ascending, and no id is a bottleneck.
template <typename T>
void embedding_backward(Context& context, std::span<const int32_t> ids, View<const T, 2> dy, View<T, 2> dtable,
                        int32_t frozen) noexcept {
  const int64_t columns = dtable.extent(1);
  context.pool().parallel((columns + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task, int) {
    const int64_t begin = task * kColumnsPerTask, end = std::min(columns, begin + kColumnsPerTask);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == frozen) continue;
      T* to = dtable.row(ids[i]);
      const T* from = dy.row(static_cast<int64_t>(i));
      for (int64_t j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

ScratchNeed embedding_backward_scratch(int, int64_t) { return {}; }

template <typename T>
void gather_rows(Context& context, std::span<const int32_t> rows, View<const T, 2> x, View<T, 2> y) noexcept {
  const auto count = static_cast<int64_t>(rows.size());
  context.pool().parallel(chunks(count), [&](int64_t task, int) {
    for (int64_t i = task * kRowsPerTask; i < std::min(count, (task + 1) * kRowsPerTask); ++i) {
      copy_row(x.row(rows[static_cast<size_t>(i)]), x.stride(1), x.extent(1), y.row(i), y.stride(1));
    }
  });
}

template <typename T>
void scatter_rows(Context& context, std::span<const int32_t> rows, View<const T, 2> dy, View<T, 2> dx) noexcept {
  const int64_t total = dx.extent(0), columns = dx.extent(1);
  context.pool().parallel(chunks(total), [&](int64_t task, int) {
    const int64_t begin = task * kRowsPerTask, end = std::min(total, begin + kRowsPerTask);
    auto next = std::lower_bound(rows.begin(), rows.end(), static_cast<int32_t>(begin));
    for (int64_t i = begin; i < end; ++i) {
      if (next != rows.end() && *next == i) {
        copy_row(dy.row(next - rows.begin()), dy.stride(1), columns, dx.row(i), dx.stride(1));
        ++next;
      } else {
        for (int64_t j = 0; j < columns; ++j) dx(i, j) = 0;
      }
    }
  });
}

#define GRAFT_INSTANTIATE(T)                                                                               \
  template void embedding<T>(Context&, std::span<const int32_t>, const Operand<T>&, View<T, 2>) noexcept;  \
  template void embedding_backward<T>(Context&, std::span<const int32_t>, View<const T, 2>, View<T, 2>,    \
                                      int32_t) noexcept;                                                   \
  template void gather_rows<T>(Context&, std::span<const int32_t>, View<const T, 2>, View<T, 2>) noexcept; \
  template void scatter_rows<T>(Context&, std::span<const int32_t>, View<const T, 2>, View<T, 2>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
