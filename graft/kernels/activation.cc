#include "graft/kernels/activation.h"

#include <cassert>

#include "graft/kernels/activation_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const ActivationTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const ActivationTable<float>* simd = activation_simd()) return *simd;
  }
  return pick_reference(activation_ref<T>(), activation_fma<T>());
}

}  // namespace

template <typename T>
void swiglu(Context& context, View<const T, 2> gate, View<const T, 2> up, View<T, 2> y) noexcept {
  assert(streams(gate) && streams(up) && streams(y) && gate.extents() == y.extents() && up.extents() == y.extents());
  const ActivationTable<T>& t = table<T>();
  for_row_ranges(context, y.extent(0), y.extent(1), [&](int64_t first, int64_t last) {
    t.swiglu(rows_of(gate, first, last), rows_of(up, first, last), rows_of(y, first, last));
  });
}

template <typename T>
void swiglu_backward(Context& context, View<const T, 2> dy, View<const T, 2> gate, View<const T, 2> up,
                     View<T, 2> dgate, View<T, 2> dup) noexcept {
  assert(streams(dy) && streams(gate) && streams(up) && streams(dgate) && streams(dup));
  assert(gate.extents() == dy.extents() && up.extents() == dy.extents());
  assert(dgate.extents() == dy.extents() && dup.extents() == dy.extents());
  const ActivationTable<T>& t = table<T>();
  for_row_ranges(context, dy.extent(0), dy.extent(1), [&](int64_t first, int64_t last) {
    t.swiglu_backward(rows_of(dy, first, last), rows_of(gate, first, last), rows_of(up, first, last),
                      rows_of(dgate, first, last), rows_of(dup, first, last));
  });
}

#define GRAFT_INSTANTIATE(T)                                                                                   \
  template void swiglu<T>(Context&, View<const T, 2>, View<const T, 2>, View<T, 2>) noexcept;                  \
  template void swiglu_backward<T>(Context&, View<const T, 2>, View<const T, 2>, View<const T, 2>, View<T, 2>, \
                                   View<T, 2>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
