#pragma once

#include <cstdint>

namespace graft {

constexpr float kLargestProbability = 0x1.fffffcp-1f;  // 1 - 2^-23

// What pointwise_loss.cc runs on one block of at most 4,096 elements: the sum of the terms. `parameter`: delta or eps.
struct PointwiseLossTable {
  using Sum = float (*)(const float* pred, const float* target, float parameter, int64_t n) noexcept;
  Sum mse, mae, huber, kl_div, bce;
};
const PointwiseLossTable& pointwise_loss_ref() noexcept;
const PointwiseLossTable& pointwise_loss_fma() noexcept;
const PointwiseLossTable* pointwise_loss_simd() noexcept;  // null: run the reference

}  // namespace graft
