#include "graft/kernels/pointwise_loss.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/pointwise_loss_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/sum_blocks_inl.h"

namespace graft {
namespace {

const PointwiseLossTable& table() noexcept {
  if (const PointwiseLossTable* simd = pointwise_loss_simd()) return *simd;
  return pick_reference(pointwise_loss_ref(), pointwise_loss_fma());
}

LossValue loss(Context& context, PointwiseLossTable::Sum sum, std::span<const float> pred,
               std::span<const float> target, double parameter, int64_t count) noexcept {
  assert(pred.size() == target.size());
  const auto n = static_cast<int64_t>(pred.size()), blocks = num_sum_blocks(n);
  assert(context.reserved().shared >= pointwise_loss_scratch(n).shared);
  float* sums = context.shared<float>();
  for_sum_blocks(context, n, [&](int64_t b, int64_t begin, int64_t size) {
    sums[b] = sum(pred.data() + begin, target.data() + begin, static_cast<float>(parameter), size);
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += static_cast<double>(sums[b]);
  return {static_cast<float>(total), static_cast<float>(total / static_cast<double>(count))};
}

int64_t length(std::span<const float> x) noexcept { return static_cast<int64_t>(x.size()); }

}  // namespace

ScratchNeed pointwise_loss_scratch(int64_t n) noexcept {
  return {.shared = static_cast<size_t>(num_sum_blocks(n)) * sizeof(float)};
}

LossValue loss_mse(Context& context, std::span<const float> pred, std::span<const float> target) noexcept {
  return loss(context, table().mse, pred, target, 0, length(pred));
}
LossValue loss_mae(Context& context, std::span<const float> pred, std::span<const float> target) noexcept {
  return loss(context, table().mae, pred, target, 0, length(pred));
}
LossValue loss_huber(Context& context, std::span<const float> pred, std::span<const float> target,
                     double delta) noexcept {
  return loss(context, table().huber, pred, target, delta, length(pred));
}
LossValue loss_kl_div(Context& context, std::span<const float> pred, std::span<const float> target, int64_t rows,
                      double eps) noexcept {
  return loss(context, table().kl_div, pred, target, eps, rows);
}
LossValue loss_bce(Context& context, std::span<const float> pred, std::span<const float> target, double eps) noexcept {
  return loss(context, table().bce, pred, target, eps, length(pred));
}

}  // namespace graft
