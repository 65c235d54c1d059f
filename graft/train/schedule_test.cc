#include "graft/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

TrainConfig make(const std::string& schedule, double lr, double min_lr, int64_t warmup, int64_t steps) {
  TrainConfig c;
  c.schedule = schedule;
  c.lr = lr;
  c.min_lr = min_lr;
  c.warmup.steps = warmup;
  c.schedule_steps = steps;
  return c;
}

TEST(Schedule, WarmupAndCosineGolden) {
  const Schedule s(make("cosine", 1e-4, 1e-6, 100, 1000), 1000);
  EXPECT_EQ(s.learning_rate(0), 0);
  const std::pair<int64_t, double> golden[] = {
      {50, 5e-5},   {100, 1e-4}, {325, 8.55017856687341e-05}, {550, 5.05e-5}, {775, 1.54982143312659e-05},
      {1000, 1e-6}, {5000, 1e-6}};
  for (const auto& [step, lr] : golden) {
    EXPECT_NEAR(s.learning_rate(step), lr, 1e-14 * 1e-4 * 100) << step;  // 15 digits are given
  }
}

TEST(Schedule, FromOneGolden) {  // moe.md section 3
  TrainConfig c = make("cosine", 1e-3, 1e-4, 10, 1200);
  c.warmup_from = 1;
  const Schedule s(c, 1);
  const std::pair<int64_t, double> golden[] = {
      {1, 1e-4}, {5, 5e-4}, {10, 1e-3}, {605, 5.5e-4}, {1000, 1.6128233517e-4}, {1200, 1e-4}, {9999, 1e-4}};
  for (const auto& [t, lr] : golden) EXPECT_NEAR(s.learning_rate(t - 1), lr, 1e-14) << t;  // 11 digits are given
}

TEST(Schedule, SameAsTheReferenceRuns) {
  GRAFT_NEEDS_FIXTURES();
  for (const char* name : {"train_qwen2", "train_mixtral"}) {
    const Json log = read_json(test::fixtures() + "/golden/" + name + "/log.json");
    const Json& o = log["optimizer"];
    if (o["schedule"] != "linear warm-up, cosine to 0") continue;
    const Schedule s(make("cosine", o["lr"], 0, o["warmup_steps"], o["total_steps"]), 10);
    for (const Json& step : log["steps"]) {
      EXPECT_NEAR(s.learning_rate(step["step"]), step["lr"].get<double>(), 1e-17)
          << name << step["step"];  // an ulp or two of 3e-3
    }
  }
}

TEST(Schedule, OtherKinds) {
  const Schedule constant(make("constant", 0.5, 0, 4, 10), 10);
  EXPECT_EQ(constant.learning_rate(0), 0);
  EXPECT_EQ(constant.learning_rate(1), 0.125);
  EXPECT_EQ(constant.learning_rate(4), 0.5);
  EXPECT_EQ(constant.learning_rate(1000), 0.5);

  const Schedule linear(make("linear", 1.0, 0.5, 2, 6), 10);
  EXPECT_EQ(linear.learning_rate(1), 0.5);
  EXPECT_EQ(linear.learning_rate(2), 1.0);
  EXPECT_EQ(linear.learning_rate(4), 0.75);
  EXPECT_EQ(linear.learning_rate(6), 0.5);
  EXPECT_EQ(linear.learning_rate(99), 0.5);

  TrainConfig w = make("wsd", 1.0, 0, 2, 10);
  w.decay_steps = {.steps = 4};
  const Schedule wsd(w, 10);
  EXPECT_EQ(wsd.learning_rate(2), 1.0);
  EXPECT_EQ(wsd.learning_rate(6), 1.0);
  EXPECT_EQ(wsd.learning_rate(8), 0.5);
  EXPECT_EQ(wsd.learning_rate(10), 0.0);
  EXPECT_EQ(wsd.learning_rate(11), 0.0);

  TrainConfig p = make("polynomial", 1.0, 0, 0, 4);
  p.power = 2;
  const Schedule polynomial(p, 4);
  EXPECT_EQ(polynomial.learning_rate(0), 1.0);
  EXPECT_NEAR(polynomial.learning_rate(2), 0.25, 1e-15);
  EXPECT_EQ(polynomial.learning_rate(4), 0.0);

  const Schedule inverse(make("inverse_sqrt", 1.0, 0.1, 4, 10), 10);
  EXPECT_EQ(inverse.learning_rate(2), 0.5);
  EXPECT_EQ(inverse.learning_rate(4), 1.0);
  EXPECT_EQ(inverse.learning_rate(16), 0.5);
  EXPECT_EQ(inverse.learning_rate(1000000), 0.1);
}

TEST(Schedule, ContinuousAndWithinItsBounds) {
  for (const char* kind : {"constant", "linear", "cosine", "wsd", "polynomial", "inverse_sqrt"}) {
    for (const int64_t warmup : {0, 1, 50}) {
      const Schedule s(make(kind, 1.0, 0.01, warmup, 500), 500);
      for (int64_t step = 0; step < 1000; ++step) {
        const double now = s.learning_rate(step), next = s.learning_rate(step + 1);
        EXPECT_GE(now, step < warmup ? 0.0 : 0.01) << kind << step;
        EXPECT_LE(now, 1.0) << kind << step;
        if (warmup != 1) {
          EXPECT_LE(std::fabs(next - now), 0.0201) << kind << step;  // steepest: 1 / 50
        }
      }
    }
  }
}

TEST(Schedule, SharesAndRunSteps) {
  TrainConfig c = make("cosine", 1, 0, 0, 0);
  c.warmup = parse_steps_or_share("5%");
  const Schedule s(c, 600);
  EXPECT_EQ(s.warmup(), 30);
  EXPECT_EQ(s.steps(), 600);
}

TEST(Schedule, RefusesWhatMakesNoSense) {
  EXPECT_THROW(Schedule(make("cosine", 1, 0, 10, 10), 1), Error);
  EXPECT_THROW(Schedule(make("cosine", 1, 1, 0, 10), 1), Error);
  EXPECT_THROW(Schedule(make("linear", 0, 0, 0, 10), 1), Error);
  EXPECT_THROW(Schedule(make("linear", 1, -1, 0, 10), 1), Error);
  EXPECT_THROW(Schedule(make("cosine", 1, 0, 0, 0), 0), Error);
  EXPECT_THROW(Schedule(make("sine", 1, 0, 0, 10), 1), Error);
  EXPECT_THROW(Schedule(make("wsd", 1, 0, 9, 10), 1).learning_rate(0) < 0 ? throw Error("")
                                                                          : Schedule(make("wsd", 1, 0, 10, 10), 1),
               Error);
  Schedule(make("constant", 1, 0, 10, 10), 1);
}

}  // namespace
}  // namespace graft
