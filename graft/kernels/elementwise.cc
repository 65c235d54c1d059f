#include "graft/kernels/elementwise.h"

#include <cassert>
#include <cmath>

#include "graft/kernels/elementwise_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const ElementwiseTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const ElementwiseTable<float>* simd = elementwise_simd()) return *simd;
  }
  return pick_reference(elementwise_ref<T>(), elementwise_fma<T>());
}

template <typename T>
void column_ratio(std::span<const T> magnitude, std::span<const T> norm, int64_t first, int64_t last,
                  T* ratio) noexcept {
  for (int64_t j = first; j < last; ++j) {
    ratio[j - first] = magnitude[static_cast<size_t>(j)] / norm[static_cast<size_t>(j)];
  }
}

}  // namespace

template <typename T>
void add(Context& context, View<const T, 2> a, View<const T, 2> b, View<T, 2> y) noexcept {
  assert(streams(a) && streams(b) && streams(y) && a.extents() == y.extents() && b.extents() == y.extents());
  const ElementwiseTable<T>& t = table<T>();
  for_row_ranges(context, y.extent(0), y.extent(1), [&](int64_t first, int64_t last) {
    t.add(rows_of(a, first, last), rows_of(b, first, last), rows_of(y, first, last));
  });
}

template <typename T>
void column_scale(Context& context, View<const T, 2> z, std::span<const T> magnitude, std::span<const T> norm,
                  std::span<const T> bias, View<T, 2> y) noexcept {
  assert(streams(z) && streams(y) && z.extents() == y.extents());
  const ElementwiseTable<T>& t = table<T>();
  for_row_ranges(context, y.extent(0), y.extent(1), [&](int64_t first, int64_t last) {
    const View<const T, 2> in = rows_of(z, first, last);
    const View<T, 2> out = rows_of(y, first, last);
    T ratio[kStripe];
    for (int64_t begin = 0; begin < y.extent(1); begin += kStripe) {
      const int64_t end = std::min(begin + kStripe, y.extent(1));
      column_ratio(magnitude, norm, begin, end, ratio);
      t.column_scale(columns_of(in, begin, end), ratio, bias.empty() ? nullptr : bias.data() + begin,
                     columns_of(out, begin, end));
    }
  });
}

template <typename T>
void column_scale_backward(Context& context, View<const T, 2> dy, View<const T, 2> z, std::span<const T> magnitude,
                           std::span<const T> norm, View<T, 2> dz, std::span<T> dmagnitude,
                           std::span<T> dbias) noexcept {
  assert(streams(dy) && streams(z) && streams(dz) && z.extents() == dy.extents() && dz.extents() == dy.extents());
  const ElementwiseTable<T>& t = table<T>();
  for_stripes(context, dy.extent(1), [&](int64_t first, int64_t last) {
    const View<const T, 2> up = columns_of(dy, first, last);
    t.column_scale_backward(up, columns_of(z, first, last), norm.data() + first, dmagnitude.data() + first);
    if (!dbias.empty()) t.sum_rows(up, dbias.data() + first);
    T ratio[kStripe];
    column_ratio(magnitude, norm, first, last, ratio);
    t.column_scale(up, ratio, nullptr, columns_of(dz, first, last));  // last: dz may be dy
  });
}

template <typename T>
void sum_rows(Context& context, View<const T, 2> dy, std::span<T> dbias) noexcept {
  assert(streams(dy) && static_cast<int64_t>(dbias.size()) == dy.extent(1));
  const ElementwiseTable<T>& t = table<T>();
  for_stripes(context, dy.extent(1),
              [&](int64_t first, int64_t last) { t.sum_rows(columns_of(dy, first, last), dbias.data() + first); });
}

template <typename T>
void dropout(Context& context, const RandomStream& stream, uint64_t update, std::span<const uint64_t> row_keys,
             double p, View<const T, 2> x, View<T, 2> y) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents() &&
         static_cast<int64_t>(row_keys.size()) == x.extent(0));
  assert(p >= 0 && p < 1);
  const DropoutDraw<T> draw = {stream.key(), static_cast<uint32_t>(update),
                               static_cast<uint32_t>(std::ceil(p * 0x1p24)), static_cast<T>(1 / (1 - p))};
  const ElementwiseTable<T>& t = table<T>();
  for_row_ranges(context, y.extent(0), y.extent(1), [&](int64_t first, int64_t last) {
    t.dropout(draw, row_keys.data() + first, rows_of(x, first, last), rows_of(y, first, last));
  });
}

#define GRAFT_INSTANTIATE(T)                                                                                   \
  template void add<T>(Context&, View<const T, 2>, View<const T, 2>, View<T, 2>) noexcept;                     \
  template void column_scale<T>(Context&, View<const T, 2>, std::span<const T>, std::span<const T>,            \
                                std::span<const T>, View<T, 2>) noexcept;                                      \
  template void column_scale_backward<T>(Context&, View<const T, 2>, View<const T, 2>, std::span<const T>,     \
                                         std::span<const T>, View<T, 2>, std::span<T>, std::span<T>) noexcept; \
  template void sum_rows<T>(Context&, View<const T, 2>, std::span<T>) noexcept;                                \
  template void dropout<T>(Context&, const RandomStream&, uint64_t, std::span<const uint64_t>, double,         \
                           View<const T, 2>, View<T, 2>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
