// The matrix forms of correlation.h: a product of the centred columns with themselves, one triangle, mirrored.

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "graft/kernels/correlation.h"
#include "graft/kernels/correlation_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

const CorrelationTable& table() noexcept {
  if (const CorrelationTable* simd = correlation_simd()) return *simd;
  return pick_reference(correlation_ref(), correlation_fma_ref());
}

// Blocks of rows that are worked on together: their panels stay in half a megabyte, and give the threads enough to share.
constexpr int64_t kGroupBytes = 512 << 10;

// Everything in the context's shared scratch.
struct Workspace {
  int64_t padded, num_panels, group;  // columns rounded up to panels; blocks of a group
  double *moments, *mean;             // [padded, padded] upper triangle, [padded]
  double *rest, *delta;               // [group, padded]
  float *panels, *products;           // [group, num_panels, 256, 16], [group, padded, padded]
  float *centre, *left;               // [group, padded]
  size_t bytes;

  Workspace(int64_t rows, int64_t columns, std::byte* at) noexcept {
    num_panels = (columns + kPanel - 1) / kPanel;
    padded = num_panels * kPanel;
    const int64_t blocks = (rows + kPanelRows - 1) / kPanelRows;
    const int64_t block_bytes = std::max<int64_t>(1, padded * std::max(kPanelRows, padded) * 4);
    group = std::clamp<int64_t>(kGroupBytes / block_bytes, 1, std::max<int64_t>(1, blocks));
    bytes = 0;
    const auto take = [&]<typename T>(T*& to, int64_t count) {
      to = reinterpret_cast<T*>(at + bytes);
      bytes += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    };
    take(moments, padded * padded);
    take(mean, padded);
    take(rest, group * padded);
    take(delta, group * padded);
    take(panels, group * padded * kPanelRows);
    take(products, group * padded * padded);
    take(centre, group * padded);
    take(left, group * padded);
  }
};

// The upper triangle of the sums of products of centred columns, and the means.
Workspace joint_moments(Context& context, const View<const float, 2>& x) noexcept {
  const int64_t rows = x.extent(0), columns = x.extent(1);
  const CorrelationTable& t = table();
  const Workspace w(rows, columns, context.shared<std::byte>());
  const int64_t padded = w.padded, panels = w.num_panels;
  std::fill_n(w.moments, padded * padded, 0.0);
  std::fill_n(w.mean, padded, 0.0);
  for (int64_t begin = 0; begin < rows; begin += w.group * kPanelRows) {
    const int64_t blocks = std::min(w.group, (rows - begin + kPanelRows - 1) / kPanelRows);
    const auto first_row = [&](int64_t g) { return begin + g * kPanelRows; };
    const auto size = [&](int64_t g) { return std::min(kPanelRows, rows - first_row(g)); };
    const auto panels_of = [&](int64_t g) { return w.panels + g * padded * kPanelRows; };
    constexpr int64_t kWide = 16;  // panels that are centred together: a kilobyte of every row
    const int64_t parts = (panels + kWide - 1) / kWide;
    const auto centre = [&](int64_t g, int64_t part) {
      const int64_t p = part * kWide, c = p * kPanel;
      t.centre(x.row(first_row(g)) + c, x.stride(0), size(g), std::min(kWide * kPanel, columns - c),
               panels_of(g) + p * kPanelSize, w.centre + g * padded + c, w.left + g * padded + c);
    };
    const auto multiply = [&](int64_t g, int64_t p) {
      t.products(panels_of(g), size(g), p, panels, w.products + (g * padded + p * kPanel) * padded, padded);
    };
    if (context.num_threads() == 1) {  // a block's panels are still near when its products are taken
      for (int64_t g = 0; g < blocks; ++g) {
        for (int64_t p = 0; p < parts; ++p) centre(g, p);
        for (int64_t p = 0; p < panels; ++p) multiply(g, p);
      }
    } else {
      context.pool().parallel(blocks * parts, [&](int64_t task, int) { centre(task / parts, task % parts); });
      context.pool().parallel(blocks * panels, [&](int64_t task, int) { multiply(task / panels, task % panels); });
    }
    for (int64_t g = 0; g < blocks; ++g) {  // Chan: what a block's mean is from that of all before it
      const auto count = static_cast<double>(first_row(g)), own = static_cast<double>(size(g));
      for (int64_t c = 0; c < padded; ++c) {
        const double left = static_cast<double>(w.left[g * padded + c]);
        w.rest[g * padded + c] = left;
        w.delta[g * padded + c] = static_cast<double>(w.centre[g * padded + c]) + left / own - w.mean[c];
        w.mean[c] += w.delta[g * padded + c] * own / (count + own);
      }
    }
    const auto merge_rows = [&](int64_t first, int64_t last) {
      for (int64_t a = first; a < last; ++a) {
        const int64_t from = a / kPanel * kPanel;
        for (int64_t g = 0; g < blocks; ++g) {
          const auto count = static_cast<double>(first_row(g)), own = static_cast<double>(size(g));
          const int64_t at = g * padded;
          t.merge(w.products + (at + a) * padded + from, w.rest + at + from, w.delta + at + from, -w.rest[at + a] / own,
                  w.delta[at + a] * count * own / (count + own), w.moments + a * padded + from, padded - from);
        }
      }
    };
    for_row_ranges(context, padded, padded * blocks / 2 + 1, merge_rows);
  }
  return w;
}

bool is_constant_column(const View<const float, 2>& x, int64_t c, double sum_of_squares, double mean) noexcept {
  if (sum_of_squares > 1e-9 * mean * mean * static_cast<double>(x.extent(0))) return false;
  for (int64_t r = 1; r < x.extent(0); ++r) {
    if (x(r, c) != x(0, c)) return false;
  }
  return true;
}

void fill(const View<float, 2>& y, float value) noexcept {
  for (int64_t a = 0; a < y.extent(0); ++a) std::fill_n(y.row(a), y.extent(1), value);
}

}  // namespace

ScratchNeed covariance_scratch(int64_t rows, int64_t columns) noexcept {
  return {.shared = Workspace(rows, columns, nullptr).bytes};
}

void reduce_covariance_matrix(Context& context, View<const float, 2> x, int64_t ddof, View<float, 2> y) noexcept {
  const int64_t rows = x.extent(0), columns = x.extent(1);
  assert(y.extent(0) == columns && y.extent(1) == columns && streams(x) && streams(y));
  if (rows <= ddof || rows == 0) return fill(y, kNaN);
  const Workspace w = joint_moments(context, x);
  const auto divisor = static_cast<double>(rows - ddof);
  for (int64_t a = 0; a < columns; ++a) {
    for (int64_t b = a; b < columns; ++b) y(a, b) = y(b, a) = static_cast<float>(w.moments[a * w.padded + b] / divisor);
  }
}

void reduce_pearson_pairwise(Context& context, View<const float, 2> x, View<float, 2> y) noexcept {
  const int64_t rows = x.extent(0), columns = x.extent(1);
  assert(y.extent(0) == columns && y.extent(1) == columns && streams(x) && streams(y));
  if (rows == 0) return fill(y, kNaN);
  const Workspace w = joint_moments(context, x);
  double* inverse = w.rest;  // 1 / standard deviation, NaN for a constant column
  for (int64_t c = 0; c < columns; ++c) {
    const double squares = w.moments[c * w.padded + c];
    const bool varies = squares > 0 && !is_constant_column(x, c, squares, w.mean[c]);
    inverse[c] = varies ? 1 / std::sqrt(squares) : std::numeric_limits<double>::quiet_NaN();
  }
  for (int64_t a = 0; a < columns; ++a) {
    for (int64_t b = a; b < columns; ++b) {
      const double r = w.moments[a * w.padded + b] * inverse[a] * inverse[b];
      const float bounded = r != r ? kNaN : static_cast<float>(std::clamp(r, -1.0, 1.0));
      y(a, b) = y(b, a) = a == b && r == r ? 1.0f : bounded;
    }
  }
}

}  // namespace graft
