#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"
#include "graft/train/config.h"
#include "graft/train/step.h"

namespace graft {

// L2 norm over all gradients together, f64, tensors in their (name) order.
double gradient_norm(Context& context, std::span<const TrainedTensor> tensors);

// The first tensor whose gradient holds a NaN or infinity; null if none does.
const TrainedTensor* non_finite_gradient(std::span<const TrainedTensor> tensors);

// One update of every tensor: clip factor min(1, clip / (norm + 1e-12)), then AdamW or SGD of `config` with rate lr. t counts applied updates
// from 1. AdamW leaves the gradients zero (TrainedTensor::cleared).
void apply_update(Context& context, const TrainConfig& config, double lr, double norm, int64_t t,
                  std::span<TrainedTensor> tensors);

}  // namespace graft
