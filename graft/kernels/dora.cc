#include "graft/kernels/dora.h"

#include <algorithm>
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

template void dora_norm<float>(Context&, const Operand<float>&, View<const float, 2>, View<const float, 2>, float,
                               std::span<float>) noexcept;
template void dora_norm<double>(Context&, const Operand<double>&, View<const double, 2>, View<const double, 2>, double,
                                std::span<double>) noexcept;

}  // namespace graft
