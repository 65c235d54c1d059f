#include "graft/kernels/grid.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "graft/kernels/grid_table.h"
#include "graft/kernels/ref.h"

namespace graft {
namespace {

constexpr int64_t kFused = 4;      // steps that one pass over the grid takes
constexpr int64_t kMaxBands = 64;  // of rows, each with its own copy of what its neighbours had before the pass
constexpr int64_t kBandCells = 32768;

const GridTable& table() noexcept {
  if (const GridTable* simd = grid_simd()) return *simd;
  return pick_reference(grid_ref(), grid_fma_ref());
}

int64_t pitch_of(int64_t width) noexcept { return (width + 15) / 16 * 16; }

// A pass of `steps` steps over a grid. Level t is the grid after t steps. A band of rows takes the levels in a wavefront: row f of level 1, then row
// f - 1 of level 2 ..., so that a row of the grid is read once and written once, `steps` - 1 rows behind. Three rows of each level between live in
// a ring; rows beyond the band come from copies made before any band began, and are computed again by each band that needs them.
struct Pass {
  const GridTable& kernels;
  bool periodic;
  float factor;
  int64_t steps;
  View<float, 2> u, before;  // before: null for the heat equation
  float* halos;              // per band: `steps` rows above and below, of u and then of before

  bool wave() const { return before.data() != nullptr; }
  int64_t height() const { return u.extent(0); }
  int64_t width() const { return u.extent(1); }
  int64_t pitch() const { return pitch_of(width()); }
  int64_t halo_rows() const { return 2 * steps * (wave() ? 2 : 1); }

  bool held(int64_t row) const { return !periodic && (row == 0 || row == height() - 1); }
  int64_t wrap(int64_t row) const { return ((row % height()) + height()) % height(); }

  void save(int64_t band, int64_t begin, int64_t end) const {
    float* to = halos + band * halo_rows() * pitch();
    for (const View<float, 2>& grid : {u, before}) {
      if (grid.data() == nullptr) continue;
      for (int64_t i = 0; i < 2 * steps; ++i, to += pitch()) {
        const int64_t row = i < steps ? begin - steps + i : end + i - steps;
        if (periodic || (row >= 0 && row < height())) std::copy_n(grid.row(wrap(row)), width(), to);
      }
    }
  }

  void run(int64_t band, int64_t begin, int64_t end, float* ring) const {
    const auto inside = [&](int64_t row) { return row >= begin && row < end; };
    const auto halo = [&](int64_t row, bool old) {
      const int64_t i = row < begin ? row - begin + steps : steps + row - end;
      return halos + (band * halo_rows() + (old ? 2 * steps : 0) + i) * pitch();
    };
    const auto ring_row = [&](int64_t level, int64_t row) {
      return ring + ((level - 1) * 3 + ((row % 3) + 3) % 3) * pitch();
    };
    // Where a row of a level is, or goes. A wave's last level but one is what u_prev becomes.
    const auto at = [&](int64_t level, int64_t row) -> float* {
      if (held(row)) return u.row(row);
      if (level == 0) return inside(row) ? u.row(wrap(row)) : halo(row, false);
      if (level == steps && steps > 1) return u.row(row);
      if (level == steps - 1 && wave() && inside(row)) return before.row(row);
      return ring_row(level, row);
    };
    const auto earlier = [&](int64_t level, int64_t row) -> const float* {  // two levels below `level`
      if (level >= 2) return at(level - 2, row);
      return inside(row) ? before.row(row) : halo(row, true);
    };
    const int64_t reach = steps - 1;
    for (int64_t front = begin - reach; front < end + reach; ++front) {
      for (int64_t level = 1; level <= steps; ++level) {
        const int64_t row = front - (level - 1), grown = steps - level;
        if (row < begin - grown || row >= end + grown || held(row)) continue;
        if (!periodic && (row < 0 || row >= height())) continue;
        const float *above = at(level - 1, row - 1), *mid = at(level - 1, row), *below = at(level - 1, row + 1);
        if (wave()) {
          kernels.wave(above, mid, below, earlier(level, row), factor, at(level, row), width(), periodic);
        } else {
          kernels.heat(above, mid, below, factor, at(level, row), width(), periodic);
        }
      }
      // One step alone: a row goes out when the next no longer needs what was there.
      if (steps == 1 && front > begin) commit(front - 1, ring_row(1, front - 1));
    }
    if (steps == 1) commit(end - 1, ring_row(1, end - 1));
    if (steps > 1 && wave() && !periodic) {  // held rows stay in both
      for (const int64_t row : {int64_t{0}, height() - 1}) {
        if (inside(row)) std::copy_n(u.row(row), width(), before.row(row));
      }
    }
  }
  void commit(int64_t row, const float* from) const {
    if (wave()) std::copy_n(u.row(row), width(), before.row(row));
    if (!held(row)) std::copy_n(from, width(), u.row(row));
  }
};

int64_t most_bands(int64_t height, int64_t width) noexcept {
  return std::clamp<int64_t>(std::min(height / (8 * kFused), height * width / kBandCells), 1, kMaxBands);
}

void advance(Context& context, double factor, int64_t steps, Boundary boundary, View<float, 2> u,
             View<float, 2> before) noexcept {
  const int64_t height = u.extent(0), width = u.extent(1);
  if (height == 0 || width == 0) return;
  const int64_t bands = std::min<int64_t>(context.num_threads(), most_bands(height, width));
  for (int64_t done = 0; done < steps;) {
    // Five are three and two: one alone is the only length that copies rows.
    const int64_t left = steps - done, now = left == kFused + 1 ? kFused - 1 : std::min(kFused, left);
    const Pass pass = {table(), boundary == Boundary::kPeriodic, static_cast<float>(factor), now, u,
                       before,  context.shared<float>()};
    const auto begin = [&](int64_t band) { return height * band / bands; };
    if (bands == 1) {
      pass.save(0, 0, height);
      pass.run(0, 0, height, context.worker<float>(0));
    } else {
      context.pool().parallel(bands, [&](int64_t b, int) { pass.save(b, begin(b), begin(b + 1)); });
      context.pool().parallel(
          bands, [&](int64_t b, int worker) { pass.run(b, begin(b), begin(b + 1), context.worker<float>(worker)); });
    }
    done += now;
  }
}

int64_t radius_of(View<const int32_t, 2> offsets) noexcept {
  int64_t radius = 0;
  for (int64_t k = 0; k < offsets.extent(0); ++k) {
    for (int64_t axis = 0; axis < offsets.extent(1); ++axis) {
      radius = std::max(radius, std::abs(int64_t{offsets(k, axis)}));
    }
  }
  return radius;
}

// Rows of a grid [depth, height, width]; a grid of two dimensions has depth 1 and offsets of two columns.
struct Stencil {
  View<const float, 3> u;
  View<const int32_t, 2> offsets;
  std::span<const float> coeffs;
  bool periodic;
  View<float, 3> y;
  int64_t radius;
  bool past;

  int64_t offset(int64_t k, int64_t axis) const {  // 0 depth, 1 height, 2 width
    const int64_t skipped = 3 - offsets.extent(1);
    return axis < skipped ? 0 : offsets(k, axis - skipped);
  }
  bool flat() const { return offsets.extent(1) == 2; }
  bool held(int64_t i, int64_t axis) const {
    return !periodic && !(flat() && axis == 0) && (i < radius || i >= u.extent(static_cast<int>(axis)) - radius);
  }
  const float* row_of(int64_t z, int64_t i) const { return u.data() + z * u.stride(0) + i * u.stride(1); }

  void row(int64_t z, int64_t i, std::byte* scratch) const {
    const int64_t width = u.extent(2), m = offsets.extent(0);
    float* to = y.data() + z * y.stride(0) + i * y.stride(1);
    const float* own = row_of(z, i);
    const int64_t edge = std::min(radius, (width + 1) / 2);  // columns at either end that look beyond the row
    if (held(z, 0) || held(i, 1) || (!periodic && 2 * radius >= width)) {
      std::copy_n(own, width, to);
      return;
    }
    auto** source = reinterpret_cast<const float**>(scratch);
    auto* ends = reinterpret_cast<float*>(scratch + static_cast<size_t>(m) * sizeof(float*));
    const auto wrap = [](int64_t at, int64_t size) { return at >= 0 && at < size ? at : ((at % size) + size) % size; };
    const GridTable& kernels = table();
    for (int64_t k = 0; k < m; ++k) {
      source[k] = row_of(wrap(z + offset(k, 0), u.extent(0)), wrap(i + offset(k, 1), u.extent(1)));
    }
    const int64_t first = edge, last = std::max(edge, width - edge);
    if (!periodic) {
      std::copy_n(own, first, to);
      std::copy_n(own + last, width - last, to + last);
    } else if (edge > 0) {  // both ends, gathered
      const int64_t both = first + width - last;
      for (int64_t k = 0; k < m; ++k) {
        for (int64_t j = 0; j < both; ++j) {
          const int64_t column = j < first ? j : last + j - first;
          ends[k * both + j] = source[k][wrap(column + offset(k, 2), width)];
        }
      }
      const auto** piece = reinterpret_cast<const float**>(ends + m * both + (m * both) % 2);
      for (int64_t k = 0; k < m; ++k) piece[k] = ends + k * both;
      kernels.stencil(piece, coeffs.data(), m, to, first, false);
      for (int64_t k = 0; k < m; ++k) piece[k] += first;
      kernels.stencil(piece, coeffs.data(), m, to + last, width - last, false);
    }
    for (int64_t k = 0; k < m; ++k) source[k] += first + offset(k, 2);
    kernels.stencil(source, coeffs.data(), m, to + first, last - first, past);
  }

  void run(Context& context) const {
    const int64_t height = u.extent(1), rows = u.extent(0) * height, width = u.extent(2);
    if (rows == 0 || width == 0) return;
    const auto range = [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) row(i / height, i % height, context.worker<std::byte>(worker));
    };
    const int64_t grain = std::max<int64_t>(1, kBandCells / 2 / width);
    if (rows <= grain) return range(0, rows, 0);
    context.pool().parallel((rows + grain - 1) / grain, [&](int64_t task, int worker) {
      range(task * grain, std::min(rows, (task + 1) * grain), worker);
    });
  }
};

constexpr int64_t kStreamElements = int64_t{4} << 20;

}  // namespace

ScratchNeed grid_scratch(int64_t height, int64_t width) noexcept {
  const auto row = sizeof(float) * static_cast<size_t>(pitch_of(width));
  return {.shared = static_cast<size_t>(most_bands(height, width) * 4 * kFused) * row,
          .per_worker = 3 * static_cast<size_t>(kFused) * row};
}

void sim_heat_equation(Context& context, double r, int64_t steps, Boundary boundary, View<float, 2> u) noexcept {
  advance(context, r, steps, boundary, u, {});
}
void sim_wave_equation(Context& context, double c2, int64_t steps, Boundary boundary, View<float, 2> u,
                       View<float, 2> u_prev) noexcept {
  assert(u.extents() == u_prev.extents());
  advance(context, c2, steps, boundary, u, u_prev);
}

ScratchNeed stencil_scratch(View<const int32_t, 2> offsets, int64_t width) noexcept {
  const auto m = static_cast<size_t>(offsets.extent(0));
  const auto ends = static_cast<size_t>(std::min(width, 2 * radius_of(offsets)));
  return {.per_worker = 2 * m * sizeof(float*) + (m * ends + 1) * sizeof(float)};
}
void sim_stencil_2d(Context& context, View<const float, 2> u, View<const int32_t, 2> offsets,
                    std::span<const float> coeffs, Boundary boundary, View<float, 2> y) noexcept {
  const auto deep = []<typename T>(View<T, 2> v) {
    return View<T, 3>(v.data(), {1, v.extent(0), v.extent(1)}, {0, v.stride(0), v.stride(1)});
  };
  Stencil{deep(u),
          offsets,
          coeffs,
          boundary == Boundary::kPeriodic,
          deep(y),
          radius_of(offsets),
          y.size() >= kStreamElements}
      .run(context);
}
void sim_stencil_3d(Context& context, View<const float, 3> u, View<const int32_t, 2> offsets,
                    std::span<const float> coeffs, Boundary boundary, View<float, 3> y) noexcept {
  Stencil{u, offsets, coeffs, boundary == Boundary::kPeriodic, y, radius_of(offsets), y.size() >= kStreamElements}.run(
      context);
}

}  // namespace graft
