#include "graft/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "graft/base/error.h"
#include "graft/kernels/math.h"

namespace graft {

Schedule::Schedule(const TrainConfig& config, int64_t run_steps)
    : max_(config.lr), min_(config.min_lr), power_(config.power), first_(config.warmup_from) {
  constexpr std::pair<const char*, Kind> kKinds[] = {
      {"constant", Kind::kConstant}, {"linear", Kind::kLinear},         {"cosine", Kind::kCosine},
      {"wsd", Kind::kWsd},           {"polynomial", Kind::kPolynomial}, {"inverse_sqrt", Kind::kInverseSqrt}};
  const auto* kind =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](const auto& k) { return k.first == config.schedule; });
  GRAFT_CHECK(kind != std::end(kKinds),
              "schedule is {}, expected one of constant, linear, cosine, wsd, polynomial, inverse_sqrt",
              printable(config.schedule));
  kind_ = kind->second;
  steps_ = config.schedule_steps > 0 ? config.schedule_steps : run_steps;
  warmup_ = config.warmup.of(steps_);
  decay_ = kind_ == Kind::kWsd ? std::max<int64_t>(config.decay_steps.of(steps_), 1) : 0;

  std::string faults;
  const auto add = [&](const std::string& fault) { faults += "\n  " + fault; };
  if (!(max_ > 0 && std::isfinite(max_))) add(fmt::format("lr is {}, expected > 0", max_));
  if (!(min_ >= 0)) add(fmt::format("min_lr is {}, expected >= 0", min_));
  const bool falls = kind_ != Kind::kConstant;
  if (falls && !(min_ < max_)) add(fmt::format("min_lr is {}, expected less than lr, {}", min_, max_));
  if (steps_ < 1) add(fmt::format("the schedule has {} steps, expected >= 1", steps_));
  const bool has_end = falls && kind_ != Kind::kInverseSqrt;
  if (has_end && warmup_ >= steps_) {
    add(fmt::format("warmup is {} steps, expected fewer than the schedule's {}", warmup_, steps_));
  } else if (has_end && warmup_ + decay_ > steps_) {
    add(fmt::format("warmup {} and decay {} are together longer than the schedule's {} steps", warmup_, decay_,
                    steps_));
  }
  GRAFT_CHECK(faults.empty(), "learning-rate schedule:{}", faults);
}

double Schedule::learning_rate(int64_t step) const {
  const int64_t s = std::max<int64_t>(step, 0) + first_;
  if (s < warmup_) return max_ * static_cast<double>(s) / static_cast<double>(warmup_);
  const auto progress = [&] {  // 0 after the warm-up, 1 at the end
    return std::min(static_cast<double>(s - warmup_) / static_cast<double>(steps_ - warmup_), 1.0);
  };
  switch (kind_) {
    case Kind::kConstant: return max_;
    case Kind::kLinear: return min_ + (max_ - min_) * (1 - progress());
    case Kind::kCosine: {
      if (s >= steps_) return min_;
      double sine, cosine;
      sincos_f64(std::numbers::pi * progress(), &sine, &cosine);
      return min_ + 0.5 * (max_ - min_) * (1 + cosine);
    }
    case Kind::kPolynomial: {
      const double left = 1 - progress();
      if (left <= 0) return min_;
      return min_ + (max_ - min_) * (power_ == 1.0 ? left : pow_f64(left, power_));
    }
    case Kind::kWsd: {
      if (s < steps_ - decay_) return max_;
      const auto left = static_cast<double>(std::max<int64_t>(steps_ - s, 0));
      return min_ + (max_ - min_) * (left / static_cast<double>(decay_));
    }
    case Kind::kInverseSqrt: {
      const double scale = warmup_ > 0 ? static_cast<double>(warmup_) : 10000.0;
      return std::max(min_, max_ * std::sqrt(scale / (static_cast<double>(s - warmup_) + scale)));
    }
  }
  return max_;
}

}  // namespace graft
