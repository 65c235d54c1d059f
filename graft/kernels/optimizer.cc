#include "graft/kernels/optimizer.h"

#include <cassert>
#include <cmath>

#include "graft/kernels/math.h"
#include "graft/kernels/optimizer_table.h"
#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const OptimizerTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const OptimizerTable<float>* simd = optimizer_simd()) return *simd;
  }
  return pick_reference(optimizer_ref<T>(), optimizer_fma<T>());
}

int64_t num_blocks(int64_t size) { return (size + kSumBlock - 1) / kSumBlock; }

}  // namespace

template <typename T>
void adamw(Context& context, const AdamWStep& step, std::span<const T> grad, std::span<T> param, std::span<T> m,
           std::span<T> v) noexcept {
  assert(grad.size() == param.size() && m.size() == param.size() && v.size() == param.size() && step.t >= 1);
  const auto t = static_cast<double>(step.t);
  AdamWScalars<T> s;
  s.grad_scale = static_cast<T>(step.grad_scale);
  s.beta1 = static_cast<T>(step.beta1);
  s.one_minus_beta1 = static_cast<T>(1 - step.beta1);
  s.beta2 = static_cast<T>(step.beta2);
  s.one_minus_beta2 = static_cast<T>(1 - step.beta2);
  s.decay = static_cast<T>(1 - step.lr * step.weight_decay);
  s.step = static_cast<T>(step.lr / (1 - pow_f64(step.beta1, t)));
  s.root_scale = static_cast<T>(1 / std::sqrt(1 - pow_f64(step.beta2, t)));
  s.eps = static_cast<T>(step.eps);
  const OptimizerTable<T>& kernels = table<T>();
  for_row_ranges(context, static_cast<int64_t>(param.size()), 1, [&](int64_t first, int64_t last) {
    kernels.adamw(s, grad.data() + first, param.data() + first, m.data() + first, v.data() + first, last - first);
  });
}

template <typename T>
void sgd(Context& context, double lr, double weight_decay, double grad_scale, std::span<const T> grad,
         std::span<T> param) noexcept {
  assert(grad.size() == param.size());
  const auto decay = static_cast<T>(1 - lr * weight_decay), step = static_cast<T>(lr * grad_scale);
  const OptimizerTable<T>& kernels = table<T>();
  for_row_ranges(context, static_cast<int64_t>(param.size()), 1, [&](int64_t first, int64_t last) {
    kernels.sgd(decay, step, grad.data() + first, param.data() + first, last - first);
  });
}

template <typename T>
double sum_squares(Context& context, std::span<const T> x) noexcept {
  const KeepSubnormals keep;
  const OptimizerTable<T>& kernels = table<T>();
  const auto size = static_cast<int64_t>(x.size()), blocks = num_blocks(size);
  const auto block = [&](int64_t b) {
    return kernels.sum_squares(x.data() + b * kSumBlock, std::min(kSumBlock, size - b * kSumBlock));
  };
  BlockSums<double> sums;
  if (context.num_threads() == 1 || blocks <= 1) {
    for (int64_t b = 0; b < blocks; ++b) sums.add(block(b));
    return sums.finish();
  }
  assert(context.reserved().shared >= sum_squares_scratch(size).shared);
  auto* scratch = context.shared<double>();
  for_row_ranges(context, blocks, kSumBlock, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) scratch[b] = block(b);
  });
  for (int64_t b = 0; b < blocks; ++b) sums.add(scratch[b]);
  return sums.finish();
}

ScratchNeed sum_squares_scratch(int64_t size) { return {static_cast<size_t>(num_blocks(size)) * sizeof(double), 0}; }

template <typename T>
int64_t first_non_finite(std::span<const T> x) noexcept {
  return table<T>().first_non_finite(x.data(), static_cast<int64_t>(x.size()));
}

#define GRAFT_INSTANTIATE(T)                                                                         \
  template void adamw<T>(Context&, const AdamWStep&, std::span<const T>, std::span<T>, std::span<T>, \
                         std::span<T>) noexcept;                                                     \
  template void sgd<T>(Context&, double, double, double, std::span<const T>, std::span<T>) noexcept; \
  template double sum_squares<T>(Context&, std::span<const T>) noexcept;                             \
  template int64_t first_non_finite<T>(std::span<const T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
