#pragma once

#include <cstdint>
#include <string>

#include "graft/train/config.h"

namespace graft {

// Learning rate of update s = 0, 1, … (lora.md section 6): W warm-up updates, T the schedule's length, max = lr.
//   s < W         max * s / W
//   constant      max
//   linear        min + (max - min) * (1 - p)                    p = min((s - W) / (T - W), 1)
//   cosine        min + (max - min) / 2 * (1 + cos(pi * p))
//   polynomial    min + (max - min) * (1 - p)^power
//   wsd           max until T - D, then min + (max - min) * (T - s) / D, min from T on
//   inverse_sqrt  max * sqrt(W' / (s - W + W')), W' = W, or 10,000 without warm-up; never below min
// With warmup_from = 1 the whole is evaluated at s + 1. Defined for every s >= 0; f64, the same bits on every CPU.
class Schedule {
 public:
  // `run_steps`: updates of the run, which `schedule_steps`, shares of warm-up and of decay fall back to. Throws Error
  // for W >= T (nothing would be left after the warm-up), W + D > T, lr <= 0, min_lr < 0 or >= lr.
  Schedule(const TrainConfig& config, int64_t run_steps);
  double learning_rate(int64_t step) const;
  int64_t warmup() const { return warmup_; }
  int64_t steps() const { return steps_; }

 private:
  enum class Kind { kConstant, kLinear, kCosine, kWsd, kPolynomial, kInverseSqrt };
  Kind kind_;
  double max_, min_, power_;
  int64_t steps_, warmup_, decay_, first_;
};

}  // namespace graft
