#pragma once

// The scalar reference of the pointwise losses. Compiled twice (ref.h).

#include <bit>
#include <cmath>

#include "graft/kernels/math_ref_inl.h"
#include "graft/kernels/pointwise_loss_table.h"
#include "graft/kernels/reduce_ref_inl.h"

namespace graft {
namespace {

float mse(const float* pred, const float* target, float /*parameter*/, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) {
    const float d = pred[j] - target[j];
    return std::fma(d, d, lane);
  });
}

float mae(const float* pred, const float* target, float /*parameter*/, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) { return lane + std::fabs(pred[j] - target[j]); });
}

float huber(const float* pred, const float* target, float delta, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) {
    const float d = std::fabs(pred[j] - target[j]);
    const float c = d > delta ? delta : d;
    return std::fma(c, std::fma(-0.5f, c, d), lane);
  });
}

float kl_div(const float* pred, const float* target, float eps, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) {
    const float t = target[j], p = pred[j] < eps ? eps : pred[j];
    return std::fma(t <= 0 ? 0.0f : t, t <= 0 ? 0.0f : log_chain(t / p), lane);
  });
}

// ln w for normal w in (0, 1], from `near` = w - 1 where w's own digits lost some of it: log_chain's for w in [2/3, 4/3).
float log_near(float w, float near) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(w);
  const int32_t k = static_cast<int32_t>(bits - 0x3F2AAAABu) >> 23;
  const float f = k == 0 ? near : std::bit_cast<float>(bits - (static_cast<uint32_t>(k) << 23)) - 1.0f;
  return std::fma(static_cast<float>(k), 0x1.62e430p-1f, log_series(f));
}

float bce(const float* pred, const float* target, float eps, int64_t n) noexcept {
  return sum_block<float>(0, n, [=](float lane, int64_t j) {
    const float raw = pred[j], t = target[j];
    const float p = raw < eps ? eps : raw > kLargestProbability ? kLargestProbability : raw;
    const float yes = log_near(p, p - 1), no = log_near(1 - p, -p);
    // 0 p: NaN in p shows, which the logarithm's bit moves would lose.
    return lane + std::fma(p, 0.0f, -std::fma(t, yes, (1 - t) * no));
  });
}

constexpr PointwiseLossTable kTable = {mse, mae, huber, kl_div, bce};

}  // namespace
}  // namespace graft
