#pragma once

// How row kernels are spread over threads: tasks of whole rows, or of stripes of columns where rows are summed.

#include <algorithm>
#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

constexpr int64_t kTaskElements = 16384;  // about 5 µs of streaming: far above what handing out a task costs
constexpr int64_t kStripe = 256;          // columns per task where rows are summed: the running sums stay in L1
constexpr int64_t kRowSumBlock = 512;  // rows per chain of a sum over rows (the order of arithmetic, not a tuning knob)

// Whether an output of so many f32 is taken to leave the cache, so that it is stored past it: reading its lines first would be a quarter
// of the traffic or more.
constexpr bool leaves_cache(int64_t elements) noexcept { return elements >= int64_t{4} << 20; }

// f(first, last, worker) for ranges of rows of at most kTaskElements elements, or of one row.
template <typename F>
void for_row_ranges_of(Context& context, int64_t rows, int64_t columns, F&& f) noexcept {
  if (rows <= 0 || columns <= 0) return;
  const int64_t grain = std::max<int64_t>(1, kTaskElements / columns);
  context.pool().parallel((rows + grain - 1) / grain, [&](int64_t task, int worker) {
    f(task * grain, std::min(rows, (task + 1) * grain), worker);
  });
}

// f(first, last) for ranges of rows.
template <typename F>
void for_row_ranges(Context& context, int64_t rows, int64_t columns, F&& f) noexcept {
  for_row_ranges_of(context, rows, columns, [&](int64_t first, int64_t last, int) { f(first, last); });
}

// f(first, last) for ranges of columns.
template <typename F>
void for_stripes(Context& context, int64_t columns, F&& f) noexcept {
  context.pool().parallel((columns + kStripe - 1) / kStripe,
                          [&](int64_t task, int) { f(task * kStripe, std::min(columns, (task + 1) * kStripe)); });
}

// Part of a view; a null view stays null.
template <typename T>
View<T, 2> rows_of(View<T, 2> x, int64_t first, int64_t last) noexcept {
  if (x.data() == nullptr) return x;
  return View<T, 2>(x.row(first), {last - first, x.extent(1)}, x.strides());
}
template <typename T>
View<T, 2> columns_of(View<T, 2> x, int64_t first, int64_t last) noexcept {
  if (x.data() == nullptr) return x;
  return View<T, 2>(x.data() + first, {x.extent(0), last - first}, x.strides());
}

// Kernels stream along rows: neighbours in a row are neighbours in memory, rows may lie at any distance.
template <typename T>
bool streams(const View<T, 2>& x) noexcept {
  return x.data() == nullptr || x.extent(1) <= 1 || x.stride(1) == 1;
}

}  // namespace graft
