#include "graft/kernels/quantize.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "graft/kernels/quantize_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const QuantizeTable& table() noexcept {
  if (const QuantizeTable* simd = quantize_simd()) return *simd;
  return pick_reference(quantize_ref(), quantize_fma_ref());
}

constexpr int64_t kLongRow = 4 * kTaskElements;  // rows from here on are shared between threads
constexpr int64_t kPart = 2 * kTaskElements;

int64_t num_parts(int64_t n) noexcept { return (n + kPart - 1) / kPart; }

// f(begin, count) over parts of n elements; a short row stays on this thread, without the pool.
template <typename F>
void for_parts(Context& context, int64_t n, F&& f) noexcept {
  if (n <= kPart) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  context.pool().parallel(num_parts(n), [&](int64_t part, int) { f(part * kPart, std::min(kPart, n - part * kPart)); });
}

// f(first, last) over ranges of short rows.
template <typename F>
void for_short_rows(Context& context, int64_t rows, int64_t columns, F&& f) noexcept {
  if (rows * columns <= kTaskElements) return f(int64_t{0}, rows);
  for_row_ranges(context, rows, columns, f);
}

float scale_of(uint16_t most) noexcept { return most == 0 ? 1.0f : to_float(f16{most}) / 127.0f; }

void quantize_part(const QuantizeTable& t, const f16* x, float scale, int8_t* q, int64_t n, bool stream) noexcept {
  if (std::isfinite(scale)) {
    t.to_i8(x, scale, q, n, stream);
  } else {
    std::fill_n(q, n, int8_t{0});
  }
}

}  // namespace

ScratchNeed quantize_scratch(int64_t /*rows*/, int64_t columns) noexcept {
  return {.shared = sizeof(uint16_t) * static_cast<size_t>(num_parts(columns))};
}

void quantize_f16_to_i8(Context& context, View<const f16, 2> x, View<int8_t, 2> q, std::span<float> scale) noexcept {
  const int64_t rows = x.extent(0), columns = x.extent(1);
  assert(q.extents() == x.extents() && static_cast<int64_t>(scale.size()) == rows && streams(x) && streams(q));
  const QuantizeTable& t = table();
  const bool stream = leaves_cache(rows * columns / 2);  // of 8 MB of i8 and more
  if (columns < kLongRow) {
    return for_short_rows(context, rows, columns, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const float s = scale_of(t.max_abs(x.row(r), columns));
        scale[static_cast<size_t>(r)] = s;
        quantize_part(t, x.row(r), s, q.row(r), columns, stream);
      }
    });
  }
  auto* most = context.shared<uint16_t>();
  for (int64_t r = 0; r < rows; ++r) {
    for_parts(context, columns,
              [&](int64_t begin, int64_t n) { most[begin / kPart] = t.max_abs(x.row(r) + begin, n); });
    const float s = scale_of(*std::max_element(most, most + num_parts(columns)));
    scale[static_cast<size_t>(r)] = s;
    for_parts(context, columns,
              [&](int64_t begin, int64_t n) { quantize_part(t, x.row(r) + begin, s, q.row(r) + begin, n, stream); });
  }
}

void dequantize_i8_to_f16(Context& context, View<const int8_t, 2> q, std::span<const float> scale,
                          View<f16, 2> x) noexcept {
  const int64_t rows = q.extent(0), columns = q.extent(1);
  assert(q.extents() == x.extents() && static_cast<int64_t>(scale.size()) == rows && streams(x) && streams(q));
  const QuantizeTable& t = table();
  const bool stream = leaves_cache(rows * columns / 2);
  const auto part = [&](int64_t r, int64_t begin, int64_t n) {
    t.from_i8(q.row(r) + begin, scale[static_cast<size_t>(r)], x.row(r) + begin, n, stream);
  };
  if (columns < kLongRow) {
    return for_short_rows(context, rows, columns, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) part(r, 0, columns);
    });
  }
  for (int64_t r = 0; r < rows; ++r) {
    for_parts(context, columns, [&](int64_t begin, int64_t n) { part(r, begin, n); });
  }
}

void quantize_f32_to_f16(Context& context, std::span<const float> x, std::span<f16> y) noexcept {
  assert(x.size() == y.size());
  const QuantizeTable& t = table();
  const auto n = static_cast<int64_t>(x.size());
  const bool stream = leaves_cache(n / 2);
  for_parts(context, n,
            [&](int64_t begin, int64_t count) { t.to_f16(x.data() + begin, y.data() + begin, count, stream); });
}

}  // namespace graft
