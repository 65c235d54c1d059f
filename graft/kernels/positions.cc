#include "graft/kernels/positions.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "graft/kernels/math.h"
#include "graft/kernels/positions_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rope_table.h"

namespace graft {
namespace {

constexpr int64_t kTurn = 32;                          // rows of a task; rotations of each of the two tables
constexpr int64_t kFar = kTurn * kTurn;                // rows that one exact rotation starts
constexpr int64_t kStreamElements = int64_t{4} << 20;  // an output of this size leaves the cache

const PositionsTable& table() noexcept {
  if (const PositionsTable* simd = positions_simd()) return *simd;
  return pick_reference(positions_ref(), positions_fma_ref());
}

int64_t ceil_div(int64_t a, int64_t b) noexcept { return (a + b - 1) / b; }

// Rotations of all pairs by some positions, [rows][cos, sin][half].
class RotationTable {
 public:
  RotationTable(double* data, int64_t half) : data_(data), half_(half) {}
  Rotations<double> row(int64_t i) const { return {data_ + 2 * i * half_, data_ + (2 * i + 1) * half_}; }
  Rotations<const double> operator[](int64_t i) const { return {row(i).cos, row(i).sin}; }
  // Row i by `position` times each frequency, to the last bit but one.
  void set(int64_t i, double position, const double* frequency) const {
    for (int64_t j = 0; j < half_; ++j) sincos_f64(position * frequency[j], row(i).sin + j, row(i).cos + j);
  }
  // Rows 0 … rows - 1 by i * step: powers of two exactly, the others as products.
  void fill(const PositionsTable& t, int64_t rows, double step, const double* frequency) const {
    set(0, 0, frequency);
    for (int64_t power = 1; power < rows; power *= 2) {
      set(power, step * static_cast<double>(power), frequency);
      for (int64_t i = 1; i < power && power + i < rows; ++i) {
        t.join((*this)[power], (*this)[i], row(power + i), half_);
      }
    }
  }

 private:
  double* data_;
  int64_t half_;
};

}  // namespace

ScratchNeed rope_precompute_scratch(int64_t length, int64_t half) noexcept {
  const auto row = static_cast<size_t>(2 * half) * sizeof(double);
  return {.shared = row * static_cast<size_t>(2 * kTurn + ceil_div(length, kFar) + 1), .per_worker = row};
}

void rope_precompute(Context& context, const RopeAngles& angles, View<float, 2> cos, View<float, 2> sin) noexcept {
  const PositionsTable& t = table();
  const int64_t length = cos.extent(0), half = cos.extent(1);
  if (length == 0 || half == 0) return;
  const double d = static_cast<double>(2 * half);
  double base = angles.base;
  if (angles.scaling == RopeAngles::Scaling::kNtk && half > 1) base *= pow_f64(angles.factor, d / (d - 2));
  const double factor = angles.scaling == RopeAngles::Scaling::kLinear ? angles.factor : 1.0;

  auto* frequency = context.shared<double>();
  for (int64_t j = 0; j < half; ++j) frequency[j] = pow_f64(base, static_cast<double>(-2 * j) / d);
  const RotationTable near(frequency + 2 * half, half), middle(near.row(kTurn).cos, half),
      far(middle.row(kTurn).cos, half);
  near.fill(t, std::min(length, kTurn), 1 / factor, frequency);
  if (length > kTurn) {
    middle.fill(t, std::min(ceil_div(length, kTurn), kTurn), static_cast<double>(kTurn) / factor, frequency);
  }
  for (int64_t i = 0; i < ceil_div(length, kFar); ++i) {
    far.set(i, static_cast<double>(angles.start + i * kFar) / factor, frequency);
  }
  const auto rows_of = [&](int64_t task, int worker) {
    Rotations<const double> anchor = far[task / kTurn];
    const RotationTable joined(context.worker<double>(worker), half);
    if (task % kTurn > 0) {
      t.join(anchor, middle[task % kTurn], joined.row(0), half);
      anchor = joined[0];
    }
    for (int64_t i = task * kTurn; i < std::min(length, (task + 1) * kTurn); ++i) {
      t.join_f32(anchor, near[i % kTurn], {cos.row(i), sin.row(i)}, half);
    }
  };
  const int64_t tasks = ceil_div(length, kTurn);
  if (length * half <= 4096) {
    for (int64_t task = 0; task < tasks; ++task) rows_of(task, 0);
  } else {
    context.pool().parallel(tasks, rows_of);
  }
}

void rope_apply(Context& context, View<const float, 4> x, View<const float, 2> cos, View<const float, 2> sin,
                bool interleaved, View<float, 4> y) noexcept {
  const RopeRowFunction turn = rope_row_function();
  const int64_t length = x.extent(1), rows = x.extent(0) * length, row_size = x.extent(2) * x.extent(3);
  RopeRow<float> shape;
  shape.heads = x.extent(2), shape.head_dim = x.extent(3), shape.half = cos.extent(1);
  shape.x_head_stride = x.stride(2), shape.y_head_stride = y.stride(2);
  shape.interleaved = interleaved;
  shape.stream = rows * row_size >= kStreamElements && x.data() != y.data();
  const int64_t chunk = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, row_size));
  const auto some = [&](int64_t task, int) {
    RopeRow<float> row = shape;
    for (int64_t i = task * chunk; i < std::min(rows, (task + 1) * chunk); ++i) {
      const int64_t b = i / length, l = i % length;
      row.x = x.data() + b * x.stride(0) + l * x.stride(1);
      row.y = y.data() + b * y.stride(0) + l * y.stride(1);
      row.cos = cos.row(l), row.sin = sin.row(l);
      turn(row);
    }
  };
  if (rows <= chunk) return some(0, 0);
  context.pool().parallel(ceil_div(rows, chunk), some);
}

void alibi_slopes(std::span<float> slopes) noexcept {
  if (slopes.empty()) return;
  const auto heads = static_cast<int64_t>(slopes.size());
  const auto power = static_cast<int64_t>(std::bit_floor(slopes.size()));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t step = h < power ? h + 1 : 2 * (h - power) + 1;
    const double exponent = -8.0 * static_cast<double>(step) / static_cast<double>(h < power ? power : 2 * power);
    slopes[static_cast<size_t>(h)] = static_cast<float>(pow_f64(2, exponent));
  }
}

void alibi_bias(Context& context, View<const float, 3> scores, std::span<const float> slopes,
                View<float, 3> y) noexcept {
  assert(static_cast<int64_t>(slopes.size()) == scores.extent(0));
  const PositionsTable& t = table();
  const int64_t queries = scores.extent(1), keys = scores.extent(2), rows = scores.extent(0) * queries;
  const bool stream = scores.size() >= kStreamElements;
  const int64_t chunk = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, keys));
  const auto some = [&](int64_t task, int) {
    for (int64_t i = task * chunk; i < std::min(rows, (task + 1) * chunk); ++i) {
      t.alibi_row(scores.data() + i * keys, slopes[static_cast<size_t>(i / queries)], i % queries + keys - queries,
                  y.data() + i * keys, keys, stream);
    }
  };
  if (rows <= chunk) return some(0, 0);
  context.pool().parallel(ceil_div(rows, chunk), some);
}

}  // namespace graft
