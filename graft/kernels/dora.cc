#include "graft/kernels/dora.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "graft/kernels/gemm_ref.h"
#include "graft/kernels/gemm_table.h"

namespace graft {

template <typename T>
void dora_norm(Context& context, const Operand<T>& w, View<const T, 2> a, View<const T, 2> b, T scaling,
               std::span<T> norm) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_dora(context, w, a, b, scaling, norm, {})) return;
  }
  const GemmRefTable<T>& kernels = gemm_ref<T>();
  context.pool().parallel(static_cast<int64_t>(norm.size()), [&](int64_t row, int) {
    norm[static_cast<size_t>(row)] = kernels.dora_row(w, row, a, b.row(row), b.stride(1), scaling, nullptr);
  });
}

ScratchNeed dora_norm_scratch(int, int64_t, int64_t) { return {}; }

void merge_rows(Context& context, View<const float, 2> w_rows, View<const float, 2> a, View<const float, 2> b_rows,
                float scaling, std::span<const float> magnitude_rows, View<float, 2> merged) noexcept {
  const GemmRefTable<float>& kernels = gemm_ref<float>();
  constexpr int64_t kRows = 64;
  context.pool().parallel((merged.extent(0) + kRows - 1) / kRows, [&](int64_t task, int) {
    const int64_t begin = task * kRows, rows = std::min(kRows, merged.extent(0) - begin);
    const auto part = [&](auto view) {
      return decltype(view)(view.row(begin), {rows, view.extent(1)}, view.strides());
    };
    const Operand<float> w = {nullptr, part(w_rows)};
    const View<float, 2> to = part(merged);
    const View<const float, 2> b = part(b_rows);
    float norm[kRows];
    // Runs in place: a region inside a task does not start threads.
    if (!blocked_dora(context, w, a, b, scaling, std::span<float>(norm, static_cast<size_t>(rows)), to)) {
      for (int64_t i = 0; i < rows; ++i) norm[i] = kernels.dora_row(w, i, a, b.row(i), b.stride(1), scaling, to.row(i));
    }
    if (magnitude_rows.empty()) return;
    for (int64_t i = 0; i < rows; ++i) {
      const float factor = magnitude_rows[static_cast<size_t>(begin + i)] / norm[i];
      for (int64_t k = 0; k < to.extent(1); ++k) to(i, k) *= factor;
    }
  });
}

namespace {
constexpr int64_t kBlockRows = 256;  // of the table in scratch at once

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }
}  // namespace

ScratchNeed dora_column_norm_scratch(int64_t hidden, int64_t rank) {
  const size_t floats = static_cast<size_t>(hidden * (kBlockRows + rank)) * sizeof(float);
  return {round_up(static_cast<size_t>(hidden) * sizeof(double)) + floats, 0};
}

template <typename T>
void dora_column_norm(Context& context, const Operand<T>& table, View<const T, 2> a, View<const T, 2> b, T scaling,
                      std::span<T> norm) noexcept {
  const int64_t vocab = a.extent(0), hidden = b.extent(0), rank = a.extent(1);
  auto* sums = context.shared<double>();
  auto* turned =
      reinterpret_cast<T*>(context.shared<std::byte>() + round_up(static_cast<size_t>(hidden) * sizeof(double)));
  const View<T, 2> bt(turned, rank, hidden), block(turned + rank * hidden, kBlockRows, hidden);
  for (int64_t r = 0; r < rank; ++r) {
    for (int64_t o = 0; o < hidden; ++o) bt(r, o) = b(o, r);
  }
  std::fill_n(sums, hidden, 0.0);
  const View<const T, 2> update(bt.data(), rank, hidden);
  for (int64_t first = 0; first < vocab; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, vocab - first);
    if constexpr (std::is_same_v<T, float>) {
      if (table.weight != nullptr) {
        table.weight->unpack_rows(context, first, count, block.data());
      } else {
        for (int64_t i = 0; i < count; ++i) std::copy_n(table.rows.row(first + i), hidden, block.row(i));
      }
      const View<float, 2> rows(block.data(), count, hidden);
      const View<const float, 2> part(a.row(first), {count, rank}, a.strides());
      merge_rows(context, View<const float, 2>(block.data(), count, hidden), update, part, scaling, {}, rows);
    } else {
      context.pool().parallel(count, [&](int64_t i, int) {
        gemm_ref<T>().dora_row(table, first + i, update, a.row(first + i), a.stride(1), scaling, block.row(i));
      });
    }
    context.pool().parallel((hidden + 63) / 64, [&](int64_t task, int) {
      const int64_t begin = task * 64, end = std::min(hidden, begin + 64);
      for (int64_t i = 0; i < count; ++i) {
        const T* row = block.row(i);
        for (int64_t o = begin; o < end; ++o) sums[o] += static_cast<double>(row[o]) * static_cast<double>(row[o]);
      }
    });
  }
  for (int64_t o = 0; o < hidden; ++o) norm[static_cast<size_t>(o)] = static_cast<T>(std::sqrt(sums[o]));
}

template void dora_column_norm<float>(Context&, const Operand<float>&, View<const float, 2>, View<const float, 2>,
                                      float, std::span<float>) noexcept;
template void dora_column_norm<double>(Context&, const Operand<double>&, View<const double, 2>, View<const double, 2>,
                                       double, std::span<double>) noexcept;
template void dora_norm<float>(Context&, const Operand<float>&, View<const float, 2>, View<const float, 2>, float,
                               std::span<float>) noexcept;
template void dora_norm<double>(Context&, const Operand<double>&, View<const double, 2>, View<const double, 2>, double,
                                std::span<double>) noexcept;

}  // namespace graft
