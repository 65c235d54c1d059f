#include "graft/kernels/dora.h"

#include "graft/kernels/gemm_ref.h"

namespace graft {

template <typename T>
void dora_norm(Context& context, const Operand<T>& w, View<const T, 2> a, View<const T, 2> b, T scaling,
               std::span<T> norm) noexcept {
  const GemmRefTable<T>& kernels = gemm_ref<T>();
  context.pool().parallel(static_cast<int64_t>(norm.size()), [&](int64_t row, int) {
    norm[static_cast<size_t>(row)] = kernels.dora_row(w, row, a, b.row(row), b.stride(1), scaling, nullptr);
  });
}

ScratchNeed dora_norm_scratch(int, int64_t, int64_t) { return {}; }

void merge_rows(Context& context, View<const float, 2> w_rows, View<const float, 2> a, View<const float, 2> b_rows, float scaling,
                std::span<const float> magnitude_rows, View<float, 2> merged) noexcept {
  const GemmRefTable<float>& kernels = gemm_ref<float>();
  const Operand<float> w = {nullptr, w_rows};
  context.pool().parallel(merged.extent(0), [&](int64_t row, int) {
    float* to = merged.row(row);
    const float norm = kernels.dora_row(w, row, a, b_rows.row(row), b_rows.stride(1), scaling, to);
    if (magnitude_rows.empty()) return;
    const float factor = magnitude_rows[static_cast<size_t>(row)] / norm;
    for (int64_t k = 0; k < merged.extent(1); ++k) to[k] *= factor;
  });
}

template void dora_norm<float>(Context&, const Operand<float>&, View<const float, 2>, View<const float, 2>, float,
                               std::span<float>) noexcept;
template void dora_norm<double>(Context&, const Operand<double>&, View<const double, 2>, View<const double, 2>, double,
                                std::span<double>) noexcept;

}  // namespace graft
