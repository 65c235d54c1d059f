#include "graft/kernels/norm.h"

#include <cassert>

#include "graft/kernels/norm_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const NormTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const NormTable<float>* simd = norm_simd()) return *simd;
  }
  return pick_reference(norm_ref<T>(), norm_fma<T>());
}

}  // namespace

template <typename T>
void rms_norm(Context& context, View<const T, 2> x, std::span<const T> weight, double eps, View<T, 2> y,
              std::span<T> rrms) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents() && static_cast<int64_t>(weight.size()) == x.extent(1));
  assert(rrms.empty() || static_cast<int64_t>(rrms.size()) == x.extent(0));
  const NormTable<T>& t = table<T>();
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.rms_norm(rows_of(x, first, last), weight.data(), static_cast<T>(eps), rows_of(y, first, last),
               rrms.empty() ? nullptr : rrms.data() + first);
  });
}

template <typename T>
void rms_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> weight,
                       std::span<const T> rrms, View<const T, 2> residual, View<T, 2> dx,
                       std::span<T> dweight) noexcept {
  assert(streams(dy) && streams(x) && streams(residual) && streams(dx));
  assert(dy.extents() == x.extents() && dx.extents() == x.extents());
  assert(static_cast<int64_t>(rrms.size()) == x.extent(0));
  const NormTable<T>& t = table<T>();
  if (!dweight.empty()) {  // first: dx may be dy
    for_stripes(context, x.extent(1), [&](int64_t first, int64_t last) {
      t.rms_norm_dweight(columns_of(dy, first, last), columns_of(x, first, last), rrms.data(), dweight.data() + first);
    });
  }
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.rms_norm_backward(rows_of(dy, first, last), rows_of(x, first, last), weight.data(), rrms.data() + first,
                        rows_of(residual, first, last), rows_of(dx, first, last));
  });
}

#define GRAFT_INSTANTIATE(T)                                                                           \
  template void rms_norm<T>(Context&, View<const T, 2>, std::span<const T>, double, View<T, 2>,        \
                            std::span<T>) noexcept;                                                    \
  template void rms_norm_backward<T>(Context&, View<const T, 2>, View<const T, 2>, std::span<const T>, \
                                     std::span<const T>, View<const T, 2>, View<T, 2>, std::span<T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
