#include "graft/kernels/softmax.h"

#include <cassert>
#include <limits>

#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/softmax_table.h"

namespace graft {
namespace {

const SoftmaxTable& table() noexcept {
  if (const SoftmaxTable* simd = softmax_simd()) return *simd;
  return pick_reference(softmax_ref(), softmax_fma());
}

constexpr int64_t kLanes = 8;  // of the sums over rows, index mod 8: one addition does not wait for another

double add_lanes(double* lanes) noexcept {
  for (int64_t width = kLanes / 2; width >= 1; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

}  // namespace

void softmax_stable(Context& context, View<const float, 2> x, View<float, 2> y) noexcept {
  softmax_online(context, x, y, {}, {});
}

void softmax_online(Context& context, View<const float, 2> x, View<float, 2> y, std::span<float> row_max,
                    std::span<float> row_sum) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents());
  assert(row_max.empty() || static_cast<int64_t>(row_max.size()) == x.extent(0));
  assert(row_sum.empty() || static_cast<int64_t>(row_sum.size()) == x.extent(0));
  const SoftmaxTable& t = table();
  const bool stream = leaves_cache(y.size());
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.softmax(rows_of(x, first, last), rows_of(y, first, last), row_max.empty() ? nullptr : row_max.data() + first,
              row_sum.empty() ? nullptr : row_sum.data() + first, stream);
  });
}

void log_softmax(Context& context, View<const float, 2> x, View<float, 2> y) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents());
  const SoftmaxTable& t = table();
  const bool stream = leaves_cache(y.size());
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.log_softmax(rows_of(x, first, last), rows_of(y, first, last), stream);
  });
}

void log_softmax(std::span<const float> x, std::span<float> y) noexcept {
  assert(x.size() == y.size());
  const KeepSubnormals keep;
  table().log_softmax(View<const float, 2>(x.data(), 1, x.size()), View<float, 2>(y.data(), 1, y.size()), false);
}

LossValue loss_cross_entropy(Context& context, View<const float, 2> logits, std::span<const int32_t> targets,
                             std::span<const float> weight, int32_t ignore_index, std::span<float> per_row) noexcept {
  assert(streams(logits) && static_cast<int64_t>(targets.size()) == logits.extent(0));
  assert(per_row.size() == targets.size());
  assert(weight.empty() || static_cast<int64_t>(weight.size()) == logits.extent(1));
  const SoftmaxTable& t = table();
  for_row_ranges(context, logits.extent(0), logits.extent(1), [&](int64_t first, int64_t last) {
    t.cross_entropy(rows_of(logits, first, last), {targets.data() + first, ignore_index,
                                                   weight.empty() ? nullptr : weight.data(), per_row.data() + first});
  });
  double losses[kLanes] = {}, weights[kLanes] = {};
  for (size_t i = 0; i < targets.size(); ++i) {
    losses[i % kLanes] += static_cast<double>(per_row[i]);
    if (targets[i] == ignore_index) continue;
    weights[i % kLanes] += weight.empty() ? 1.0 : static_cast<double>(weight[static_cast<size_t>(targets[i])]);
  }
  const double sum = add_lanes(losses), count = add_lanes(weights);
  const double mean = count == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / count;
  return {static_cast<float>(sum), static_cast<float>(mean)};
}

void fused_softmax_cross_entropy(Context& context, View<const float, 2> logits, std::span<const int32_t> targets,
                                 int32_t ignore_index, double grad_scale, std::span<float> loss,
                                 View<float, 2> grad) noexcept {
  assert(streams(logits) && streams(grad) && logits.extents() == grad.extents());
  assert(static_cast<int64_t>(targets.size()) == logits.extent(0) && loss.size() == targets.size());
  const SoftmaxTable& t = table();
  const bool stream = leaves_cache(grad.size());
  for_row_ranges(context, logits.extent(0), logits.extent(1), [&](int64_t first, int64_t last) {
    t.cross_entropy_gradient(rows_of(logits, first, last),
                             {targets.data() + first, ignore_index, nullptr, loss.data() + first},
                             static_cast<float>(grad_scale), rows_of(grad, first, last), stream);
  });
}

}  // namespace graft
