#include "graft/kernels/optimizer.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "graft/kernels/math.h"
#include "graft/kernels/optimizer_table.h"
#include "graft/kernels/reduce.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/sum_blocks_inl.h"

namespace graft {
namespace {

template <typename T>
const OptimizerTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const OptimizerTable<float>* simd = optimizer_simd()) return *simd;
  }
  return pick_reference(optimizer_ref<T>(), optimizer_fma<T>());
}

// f(first, last) over n elements, from the end backwards if asked: what the pass before read last is still in the cache.
template <typename F>
void for_elements(Context& context, int64_t n, bool backwards, F&& f) noexcept {
  const int64_t tasks = (n + kTaskElements - 1) / kTaskElements;
  context.pool().parallel(tasks, [&](int64_t task, int) {
    const int64_t first = (backwards ? tasks - 1 - task : task) * kTaskElements;
    f(first, std::min(n, first + kTaskElements));
  });
}

template <typename T>
AdamWScalars<T> scalars_of(const AdamWStep& step) noexcept {
  const auto t = static_cast<double>(step.t);
  AdamWScalars<T> s;
  s.grad_scale = static_cast<T>(step.grad_scale);
  s.one_minus_beta1 = static_cast<T>(1 - step.beta1);
  s.beta2 = static_cast<T>(step.beta2);
  s.one_minus_beta2 = static_cast<T>(1 - step.beta2);
  s.decay = static_cast<T>(1 - step.lr * step.weight_decay);
  s.step = static_cast<T>(step.bias_correction ? step.lr / (1 - pow_f64(step.beta1, t)) : step.lr);
  s.root_scale = static_cast<T>(step.bias_correction ? 1 / std::sqrt(1 - pow_f64(step.beta2, t)) : 1.0);
  s.eps = static_cast<T>(step.eps);
  s.clip = 0;
  return s;
}

// max_norm / norm where the norm is above it, else 1.
double clip_factor(double norm, double max_norm) noexcept { return norm > max_norm ? max_norm / norm : 1.0; }

}  // namespace

template <typename T>
void adamw(Context& context, const AdamWStep& step, std::span<const T> grad, std::span<T> param, std::span<T> m,
           std::span<T> v) noexcept {
  assert(grad.size() == param.size() && m.size() == param.size() && v.size() == param.size() && step.t >= 1);
  const AdamWScalars<T> s = scalars_of<T>(step);
  const OptimizerTable<T>& kernels = table<T>();
  for_row_ranges(context, static_cast<int64_t>(param.size()), 1, [&](int64_t first, int64_t last) {
    kernels.adamw(s, grad.data() + first, param.data() + first, m.data() + first, v.data() + first, last - first);
  });
}

template <typename T>
void adamw_and_clear(Context& context, const AdamWStep& step, std::span<T> grad, std::span<T> param, std::span<T> m,
                     std::span<T> v) noexcept {
  assert(grad.size() == param.size() && m.size() == param.size() && v.size() == param.size() && step.t >= 1);
  constexpr int64_t kPiece = 2048;  // elements: four arrays of 8 KB
  const AdamWScalars<T> s = scalars_of<T>(step);
  const OptimizerTable<T>& kernels = table<T>();
  for_row_ranges(context, static_cast<int64_t>(param.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += kPiece) {
      const int64_t n = std::min(kPiece, last - i);
      kernels.adamw(s, grad.data() + i, param.data() + i, m.data() + i, v.data() + i, n);
      std::fill_n(grad.data() + i, n, T{0});
    }
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
  const auto size = static_cast<int64_t>(x.size()), blocks = num_sum_blocks(size);
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

ScratchNeed sum_squares_scratch(int64_t size) {
  return {static_cast<size_t>(num_sum_blocks(size)) * sizeof(double), 0};
}

template <typename T>
int64_t first_non_finite(std::span<const T> x) noexcept {
  return table<T>().first_non_finite(x.data(), static_cast<int64_t>(x.size()));
}

void opt_sgd(Context& context, double lr, std::span<const float> grad, std::span<float> param) noexcept {
  sgd<float>(context, lr, 0, 1, grad, param);
}

void opt_sgd_momentum(Context& context, double lr, double momentum, std::span<const float> grad, std::span<float> param,
                      std::span<float> velocity) noexcept {
  assert(grad.size() == param.size() && velocity.size() == param.size());
  const OptimizerTable<float>& kernels = table<float>();
  for_elements(context, static_cast<int64_t>(param.size()), false, [&](int64_t first, int64_t last) {
    kernels.sgd_momentum(static_cast<float>(lr), static_cast<float>(momentum), grad.data() + first,
                         param.data() + first, velocity.data() + first, last - first);
  });
}

void opt_adam(Context& context, AdamWStep step, std::span<const float> grad, std::span<float> param, std::span<float> m,
              std::span<float> v) noexcept {
  step.weight_decay = 0;
  adamw<float>(context, step, grad, param, m, v);
}

void opt_adamw(Context& context, const AdamWStep& step, std::span<const float> grad, std::span<float> param,
               std::span<float> m, std::span<float> v) noexcept {
  adamw<float>(context, step, grad, param, m, v);
}

namespace {

void scale_backwards(Context& context, double factor, std::span<const float> x, std::span<float> y) noexcept {
  const OptimizerTable<float>& kernels = table<float>();
  const auto n = static_cast<int64_t>(x.size());
  const bool stream = x.data() != y.data() && leaves_cache(n);
  for_elements(context, n, true, [&](int64_t first, int64_t last) {
    kernels.scale(static_cast<float>(factor), x.data() + first, y.data() + first, last - first, stream);
  });
}

// The sum of squares: in f32 lanes, which takes half the time of sum_squares in a cache, unless f32 cannot hold the squares. The same
// scratch serves both: 8 bytes a block.
double clip_squares(Context& context, std::span<const float> g) noexcept {
  const auto quick = static_cast<double>(map_reduce_square_sum(context, g));
  return quick > 1e-20 && quick < 1e38 ? quick : sum_squares<float>(context, g);
}

}  // namespace

float grad_clip_norm(Context& context, std::span<const std::span<float>> grads, double max_norm) noexcept {
  double squares = 0;
  for (const std::span<float> g : grads) squares += clip_squares(context, g);
  const double norm = std::sqrt(squares), factor = clip_factor(norm, max_norm);
  if (factor != 1) {
    for (size_t i = grads.size(); i-- > 0;) scale_backwards(context, factor, grads[i], grads[i]);
  }
  return static_cast<float>(norm);
}

float grad_clip_norm(Context& context, std::span<const float> grad, double max_norm,
                     std::span<float> clipped) noexcept {
  assert(grad.size() == clipped.size());
  const double norm = std::sqrt(clip_squares(context, grad)), factor = clip_factor(norm, max_norm);
  if (factor != 1 || grad.data() != clipped.data()) scale_backwards(context, factor, grad, clipped);
  return static_cast<float>(norm);
}

void grad_clip_value(Context& context, std::span<const float> grad, double max_value,
                     std::span<float> clipped) noexcept {
  assert(grad.size() == clipped.size());
  const OptimizerTable<float>& kernels = table<float>();
  const auto n = static_cast<int64_t>(grad.size());
  const bool stream = grad.data() != clipped.data() && leaves_cache(n);
  for_elements(context, n, false, [&](int64_t first, int64_t last) {
    kernels.clamp(static_cast<float>(max_value), grad.data() + first, clipped.data() + first, last - first, stream);
  });
}

float fused_adam_clip_update(Context& context, AdamWStep step, ClipMode mode, double clip, std::span<const float> grad,
                             std::span<float> param, std::span<float> m, std::span<float> v) noexcept {
  assert(grad.size() == param.size() && m.size() == param.size() && v.size() == param.size() && step.t >= 1);
  double norm = 0;
  step.grad_scale = 1;
  if (mode == ClipMode::kNorm) {
    norm = std::sqrt(clip_squares(context, grad));
    step.grad_scale = clip_factor(norm, clip);
  }
  AdamWScalars<float> s = scalars_of<float>(step);
  s.clip = static_cast<float>(clip);
  const OptimizerTable<float>& kernels = table<float>();
  const auto update = mode == ClipMode::kValue ? kernels.adamw_clipped : kernels.adamw;
  for_elements(context, static_cast<int64_t>(param.size()), mode == ClipMode::kNorm, [&](int64_t first, int64_t last) {
    update(s, grad.data() + first, param.data() + first, m.data() + first, v.data() + first, last - first);
  });
  return static_cast<float>(norm);
}

#define GRAFT_INSTANTIATE(T)                                                                             \
  template void adamw<T>(Context&, const AdamWStep&, std::span<const T>, std::span<T>, std::span<T>,     \
                         std::span<T>) noexcept;                                                         \
  template void adamw_and_clear<T>(Context&, const AdamWStep&, std::span<T>, std::span<T>, std::span<T>, \
                                   std::span<T>) noexcept;                                               \
  template void sgd<T>(Context&, double, double, double, std::span<const T>, std::span<T>) noexcept;     \
  template double sum_squares<T>(Context&, std::span<const T>) noexcept;                                 \
  template int64_t first_non_finite<T>(std::span<const T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
