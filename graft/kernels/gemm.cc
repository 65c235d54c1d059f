#include "graft/kernels/gemm.h"

#include <algorithm>
#include <type_traits>

#include "graft/base/cpu.h"
#include "graft/kernels/gemm_ref.h"
#include "graft/kernels/gemm_table.h"

namespace graft {
namespace {

constexpr int64_t kTile = 64;

int64_t tiles(int64_t n) { return (n + kTile - 1) / kTile; }

// Calls f(row_begin, row_end, column_begin, column_end) for every tile of a rows x columns matrix.
template <typename F>
void for_each_tile(Context& context, int64_t rows, int64_t columns, F&& f) {
  const int64_t across = tiles(columns);
  context.pool().parallel(tiles(rows) * across, [&](int64_t task, int) {
    const int64_t row = task / across * kTile, column = task % across * kTile;
    f(row, std::min(rows, row + kTile), column, std::min(columns, column + kTile));
  });
}

}  // namespace

template <>
const GemmRefTable<float>& gemm_ref<float>() noexcept {
  return cpu_has_fma() ? fma::kGemmFloat : ref::kGemmFloat;
}
template <>
const GemmRefTable<double>& gemm_ref<double>() noexcept {
  return cpu_has_fma() ? fma::kGemmDouble : ref::kGemmDouble;
}

template <typename T>
void matmul_nt(Context& context, Compute compute, View<const T, 2> x,
               std::span<const MatmulOutput<T>> outputs) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_nt(context, compute, x, outputs)) return;
  }
  const GemmRefTable<T>& table = gemm_ref<T>();
  for (const MatmulOutput<T>& output : outputs) {
    for_each_tile(context, x.extent(0), output.w.out_features(),
                  [&](int64_t row, int64_t row_end, int64_t out, int64_t out_end) {
                    table.nt(compute, x, output, row, row_end, out, out_end);
                  });
  }
}

template <typename T>
void matmul_nn(Context& context, Compute compute, std::span<const MatmulSource<T>> sources, bool accumulate,
               View<T, 2> dx) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_nn(context, compute, sources, accumulate, dx)) return;
  }
  const GemmRefTable<T>& table = gemm_ref<T>();
  for_each_tile(context, dx.extent(0), dx.extent(1),
                [&](int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
                  table.nn(compute, sources, accumulate, dx, row, row_end, column, column_end);
                });
}

template <typename T>
void matmul_tn(Context& context, View<const T, 2> a, View<const T, 2> b, T scale, bool accumulate,
               View<T, 2> dw) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_tn(context, a, b, scale, accumulate, dw)) return;
  }
  const GemmRefTable<T>& table = gemm_ref<T>();
  for_each_tile(context, dw.extent(0), dw.extent(1),
                [&](int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
                  table.tn(a, b, scale, accumulate, dw, row, row_end, column, column_end);
                });
}

template void matmul_nt<float>(Context&, Compute, View<const float, 2>, std::span<const MatmulOutput<float>>) noexcept;
template void matmul_nt<double>(Context&, Compute, View<const double, 2>,
                                std::span<const MatmulOutput<double>>) noexcept;
template void matmul_nn<float>(Context&, Compute, std::span<const MatmulSource<float>>, bool, View<float, 2>) noexcept;
template void matmul_nn<double>(Context&, Compute, std::span<const MatmulSource<double>>, bool,
                                View<double, 2>) noexcept;
template void matmul_tn<float>(Context&, View<const float, 2>, View<const float, 2>, float, bool,
                               View<float, 2>) noexcept;
template void matmul_tn<double>(Context&, View<const double, 2>, View<const double, 2>, double, bool,
                                View<double, 2>) noexcept;

}  // namespace graft
