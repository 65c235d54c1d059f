#include "graft/kernels/layout.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/layout_table.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const LayoutTable& table() noexcept {
  if (const LayoutTable* simd = layout_simd()) return *simd;
  return layout_ref();
}

constexpr int64_t kStripeRows = 64;  // rows of x walked together: 256 bytes of each row of y come at once
constexpr int64_t kStripeColumns = 1024;

}  // namespace

void transpose_2d(Context& context, View<const float, 2> x, View<float, 2> y) noexcept {
  const int64_t rows = x.extent(0), columns = x.extent(1);
  assert(y.extent(0) == columns && y.extent(1) == rows && streams(x) && streams(y));
  const int64_t size = rows * columns;
  if (size <= 0) return;
  const LayoutTable& t = table();
  const bool stream = leaves_cache(size);
  if (size <= kTaskElements) {
    return t.transpose(x.data(), x.stride(0), y.data(), y.stride(0), rows, columns, stream);
  }
  // Tasks of 64 rows and 1,024 columns, or more of what there is where the other side is short.
  const int64_t high = std::min(rows, std::max(kStripeRows, kTaskElements / columns / kStripeRows * kStripeRows));
  const int64_t wide = std::min(columns, std::max(kStripeColumns, kTaskElements / rows / kStripeRows * kStripeRows));
  const int64_t across = (columns + wide - 1) / wide;
  context.pool().parallel((rows + high - 1) / high * across, [&](int64_t task, int) {
    const int64_t r = task / across * high, c = task % across * wide;
    t.transpose(x.row(r) + c, x.stride(0), y.row(c) + r, y.stride(0), std::min(high, rows - r),
                std::min(wide, columns - c), stream);
  });
}

namespace {

// f(begin, count, stream) over ranges of n records.
template <typename F>
void for_records(Context& context, int64_t n, int64_t fields, F&& f) noexcept {
  const bool stream = leaves_cache(n * fields);
  constexpr int64_t kTask = kTaskElements / 4;  // a multiple of a cache line in every array
  if (n <= kTask) {
    if (n > 0) f(int64_t{0}, n, stream);
    return;
  }
  context.pool().parallel((n + kTask - 1) / kTask,
                          [&](int64_t task, int) { f(task * kTask, std::min(kTask, n - task * kTask), stream); });
}

bool is_interleaved(const View<const float, 2>& records) noexcept {
  const int64_t fields = records.extent(1);
  return fields >= 2 && fields <= 4 && records.contiguous();
}

}  // namespace

void repack_aos_to_soa(Context& context, View<const float, 2> aos, View<float, 2> soa) noexcept {
  const int64_t n = aos.extent(0), fields = aos.extent(1);
  assert(soa.extent(0) == fields && soa.extent(1) == n && streams(aos) && streams(soa));
  if (!is_interleaved(aos)) return transpose_2d(context, aos, soa);
  const LayoutTable& t = table();
  for_records(context, n, fields, [&](int64_t begin, int64_t count, bool stream) {
    t.split(aos.row(begin), fields, soa.data() + begin, soa.stride(0), count, stream);
  });
}

void repack_soa_to_aos(Context& context, View<const float, 2> soa, View<float, 2> aos) noexcept {
  const int64_t n = aos.extent(0), fields = aos.extent(1);
  assert(soa.extent(0) == fields && soa.extent(1) == n && streams(aos) && streams(soa));
  if (!is_interleaved(aos)) return transpose_2d(context, soa, aos);
  const LayoutTable& t = table();
  for_records(context, n, fields, [&](int64_t begin, int64_t count, bool stream) {
    t.join(soa.data() + begin, soa.stride(0), aos.row(begin), fields, count, stream);
  });
}

}  // namespace graft
