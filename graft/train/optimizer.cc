#include "graft/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "graft/kernels/optimizer.h"

namespace graft {

double gradient_norm(Context& context, std::span<const TrainedTensor> tensors) {
  double sum = 0;
  for (const TrainedTensor& t : tensors) {
    context.reserve(sum_squares_scratch(static_cast<int64_t>(t.gradient().size())));
    sum += sum_squares<float>(context, t.gradient());
  }
  return std::sqrt(sum);
}

const TrainedTensor* non_finite_gradient(std::span<const TrainedTensor> tensors) {
  for (const TrainedTensor& t : tensors) {
    if (first_non_finite<float>(t.gradient()) >= 0) return &t;
  }
  return nullptr;
}

void apply_update(Context& context, const TrainConfig& config, double lr, double norm, int64_t t,
                  std::span<TrainedTensor> tensors) {
  const double scale = config.clip > 0 ? std::min(1.0, config.clip / (norm + 1e-12)) : 1.0;
  // From the last on, whose gradients the norm read last: some are still in the cache.
  for (size_t i = tensors.size(); i-- > 0;) {
    TrainedTensor& tensor = tensors[i];
    const double decay = tensor.decay || config.decay_all ? config.weight_decay : 0.0;
    if (config.optimizer == "sgd") {
      sgd<float>(context, lr, decay, scale, tensor.gradient(), tensor.value);
      continue;
    }
    AdamWStep step;
    step.lr = lr, step.beta1 = config.beta1, step.beta2 = config.beta2, step.eps = config.eps;
    step.weight_decay = decay;
    step.t = t;
    step.grad_scale = scale;
    adamw_and_clear<float>(context, step, tensor.gradient(), tensor.value, tensor.m.as<float>(), tensor.v.as<float>());
    tensor.cleared = true;
  }
}

}  // namespace graft
