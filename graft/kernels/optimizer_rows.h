#pragma once

// Shared by the rows of opt_adam, opt_adamw and fused_adam_clip_update.

#include <algorithm>

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/optimizer.h"

namespace graft {

// An output that starts as a copy of the input of its name, or is it.
inline void copy_to_output(KernelCall& call, std::string_view name) {
  const std::span<const float> from = call.in<float>(name);
  call.make(name, DType::kF32, call.in_shape(name));
  const std::span<float> to = call.out<float>(name);
  if (to.data() != from.data()) std::ranges::copy(from, to.begin());
}

// Checks and makes param, m and v.
inline void prepare_moments(KernelCall& call) {
  call.in<float>("grad");
  for (const std::string_view name : {"param", "m", "v"}) {
    same_shape(call, "grad", name);
    copy_to_output(call, name);
  }
  GRAFT_CHECK(call.integer("step", 1) >= 1, "parameter 'step' is {}, expected 1 or more", call.integer("step", 1));
}

inline AdamWStep adam_step(const KernelCall& call) {
  AdamWStep step;
  step.lr = call.real("lr", 1e-3);
  step.beta1 = call.real("beta1", 0.9), step.beta2 = call.real("beta2", 0.999);
  step.eps = call.real("eps", 1e-8), step.weight_decay = call.real("weight_decay", 0.01);
  step.t = call.integer("step", 1);
  step.bias_correction = call.flag("bias_correction", true);
  return step;
}

inline void example_adam(KernelCall& call, int64_t size, uint64_t seed) {
  for (const std::string_view name : {"param", "grad", "m"}) add_uniform(call, name, {size}, seed);
  add_uniform(call, "v", {size}, seed, 0.01f, 0.3f);
  call.set_parameter("step", "10");
}

}  // namespace graft
