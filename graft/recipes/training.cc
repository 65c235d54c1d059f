#include "graft/base/error.h"
#include "graft/recipes/recipes.h"

namespace graft {

float training_step(Context& context, const TrainingOptions& options, std::span<const float> grad,
                    const TrainingState& state) {
  const size_t n = grad.size();
  const bool adam = options.optimizer == Optimizer::kAdam || options.optimizer == Optimizer::kAdamW;
  const bool momentum = options.optimizer == Optimizer::kMomentum;
  GRAFT_CHECK(state.param.size() == n, "training_step: {} gradients for {} parameters", n, state.param.size());
  GRAFT_CHECK(!(adam || momentum) || state.m.size() == n, "training_step: {} first moments for {} parameters",
              state.m.size(), n);
  GRAFT_CHECK(!adam || state.v.size() == n, "training_step: {} second moments for {} parameters", state.v.size(), n);
  GRAFT_CHECK(options.clip == Clip::kNone || options.clip_at > 0, "training_step: clip at {}, expected above 0",
              options.clip_at);
  context.reserve(reduce_scratch(static_cast<int64_t>(n)));
  context.reserve(sum_squares_scratch(static_cast<int64_t>(n)));
  if (adam && options.clip != Clip::kNone) {
    AdamWStep step = options.step;
    if (options.optimizer == Optimizer::kAdam) step.weight_decay = 0;
    const bool by_norm = options.clip == Clip::kNorm;
    const float length = by_norm ? 0 : reduce_l2(context, grad);
    const float found = fused_adam_clip_update(context, step, by_norm ? ClipMode::kNorm : ClipMode::kValue,
                                               options.clip_at, grad, state.param, state.m, state.v);
    return by_norm ? found : length;
  }
  std::vector<float> clipped;
  std::span<const float> g = grad;
  float norm = 0;
  if (options.clip == Clip::kNorm) {
    clipped.resize(n);
    norm = grad_clip_norm(context, grad, options.clip_at, clipped);
    g = clipped;
  } else {
    norm = reduce_l2(context, grad);
    if (options.clip == Clip::kValue) {
      clipped.resize(n);
      grad_clip_value(context, grad, options.clip_at, clipped);
      g = clipped;
    }
  }
  switch (options.optimizer) {
    case Optimizer::kSgd: opt_sgd(context, options.step.lr, g, state.param); break;
    case Optimizer::kMomentum:
      opt_sgd_momentum(context, options.step.lr, options.momentum, g, state.param, state.m);
      break;
    case Optimizer::kAdam: opt_adam(context, options.step, g, state.param, state.m, state.v); break;
    case Optimizer::kAdamW: opt_adamw(context, options.step, g, state.param, state.m, state.v); break;
  }
  return norm;
}

}  // namespace graft
