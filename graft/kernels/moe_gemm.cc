#include "graft/kernels/moe_gemm.h"

#include <algorithm>
#include <type_traits>

#include "graft/kernels/gemm_blocks.h"
#include "graft/kernels/moe_table.h"
#include "graft/kernels/ref.h"

namespace graft {
namespace {

constexpr int64_t kTile = 64;

template <typename T>
const MoeRefTable<T>& reference() noexcept {
  return pick_reference(moe_ref<T>(), moe_fma<T>());
}
template <typename T>
const MoeTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const MoeTable<float>* simd = moe_simd()) return *simd;
  }
  return reference<T>().rows;
}

// f(begin, end) for tiles of columns.
template <typename F>
void for_column_tiles(Context& context, int64_t columns, F&& f) {
  context.pool().parallel((columns + kTile - 1) / kTile,
                          [&](int64_t task, int) { f(task * kTile, std::min(columns, (task + 1) * kTile)); });
}

}  // namespace

template <typename T>
void expert_products(Context& context, const ExpertRows& rows, std::span<const ExpertProduct<T>> products) noexcept {
  if (rows.count() == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_products(context, rows, products)) return;
  }
  for (const ExpertProduct<T>& product : products) {
    for_column_tiles(context, product.y.extent(1),
                     [&](int64_t begin, int64_t end) { reference<T>().product(rows, product, begin, end); });
  }
}

template <typename T>
void expert_gradients(Context& context, const ExpertRows& rows, std::span<const ExpertGradient<T>> gradients) noexcept {
  if (rows.count() == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (blocked_gradients(context, rows, gradients)) return;
  }
  for (const ExpertGradient<T>& gradient : gradients) {
    int64_t columns = 0;
    for (const View<T, 2>& dw : gradient.dw) columns = std::max(columns, dw.extent(1));
    for_column_tiles(context, columns,
                     [&](int64_t begin, int64_t end) { reference<T>().gradient(rows, gradient, begin, end); });
  }
}

template <typename T>
void expert_weight_gradients(Context& context, const ExpertRows& rows, std::span<const T> weights, View<T, 2> u,
                             View<T, 2> h, std::span<T> dweights) noexcept {
  const int64_t count = rows.count();
  if (count < static_cast<int64_t>(dweights.size())) std::fill(dweights.begin(), dweights.end(), T{0});
  const MoeTable<T>& t = table<T>();
  constexpr int64_t kGrain = 8;
  context.pool().parallel((count + kGrain - 1) / kGrain, [&](int64_t task, int) {
    for (int64_t i = task * kGrain; i < std::min(count, (task + 1) * kGrain); ++i) {
      const auto assignment = static_cast<size_t>(rows.rows[static_cast<size_t>(i)]);
      const T weight = weights[assignment];
      dweights[assignment] = t.dot(u.row(i), h.row(i), u.extent(1));
      t.scale(u.row(i), weight, nullptr, u.row(i), u.extent(1));
      t.scale(h.row(i), weight, nullptr, h.row(i), h.extent(1));
    }
  });
}

ScratchNeed expert_scratch(int, int64_t assignments, int64_t summed) {
  // Each of a few sources is rounded up to an odd number of lines.
  const int64_t row_bytes = blocked::packed_row_bytes(summed * static_cast<int64_t>(sizeof(float))) + 4 * 128;
  const int64_t shared = std::min(assignments * row_bytes, std::max(blocked::kPackBytes, kGemmBlock * row_bytes));
  return {static_cast<size_t>(shared),
          static_cast<size_t>((2 * blocked::kBlockFloats + blocked::kMaxRowBlock * kGemmPanel) * 4)};
}

#define GRAFT_INSTANTIATE(T)                                                                                        \
  template void expert_products<T>(Context&, const ExpertRows&, std::span<const ExpertProduct<T>>) noexcept;        \
  template void expert_gradients<T>(Context&, const ExpertRows&, std::span<const ExpertGradient<T>>) noexcept;      \
  template void expert_weight_gradients<T>(Context&, const ExpertRows&, std::span<const T>, View<T, 2>, View<T, 2>, \
                                           std::span<T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
