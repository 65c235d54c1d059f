#include "graft/train/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "graft/base/buffer.h"
#include "graft/base/file.h"
#include "graft/base/process.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

StepMetrics at(int64_t step) {
  return {.step = step,
          .epoch = 0.5,
          .loss = 2.5,
          .learning_rate = 1e-4,
          .grad_norm = 0.75,
          .num_tokens = 100 * step,
          .tokens_per_second = 1234.5,
          .step_time = 0.25,
          .experts = {}};
}

TEST(Metrics, LinesHaveTheNamesOfTheContract) {
  EXPECT_EQ(
      to_json(at(3)).dump(),
      R"({"step":3,"epoch":0.5,"loss":2.5,"learning_rate":0.0001,"grad_norm":0.75,"num_tokens":300,"tokens_per_second":1234.5,"step_time":0.25})");
  StepMetrics m = at(1);
  m.experts = ExpertMetrics{.cross_entropy = 2.0, .dead_experts = 3};
  const Json json = to_json(m);
  for (const char* key :
       {"cross_entropy", "aux_loss", "z_loss", "expert_share_max", "expert_entropy", "dead_experts"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  m.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(to_json(m)["loss"].is_null());
  EXPECT_EQ(to_json(EvalMetrics{.step = 2, .eval_loss = 1.5})["eval_loss"], 1.5);
}

TEST(Metrics, LogContinuesAfterTheResumedStep) {
  const test::TempDir folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsLog log(path, 0);
    for (int64_t s = 1; s <= 5; ++s) log.write(at(s));
    log.write(EvalMetrics{.step = 3, .eval_loss = 1});
    log.sync();
  }
  write_file(path, read_file(path) + "{\"step\": 6, \"lo");  // a crash
  EXPECT_EQ(read_metrics(path).size(), 6u);
  {
    MetricsLog log(path, 3);
    log.write(at(4));
  }
  std::vector<int64_t> steps;
  for (const Json& line : read_metrics(path)) steps.push_back(line["step"]);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 3, 4}));
  { MetricsLog log(path, 0); }
  EXPECT_TRUE(read_metrics(path).empty());
  EXPECT_TRUE(read_metrics(folder / "none").empty());
}

TEST(Metrics, ProgressLine) {
  Progress p{at(12), 600, 1240000000, 200};
  EXPECT_EQ(progress_line(p),
            "step  12/600  loss 2.5000  lr 1.00e-04  grad norm 0.750   1,235 tokens/s  1.24 GB  3m 20s left");
  p.seconds_left = -1;
  EXPECT_EQ(progress_line(p).find("left"), std::string::npos);
}

TEST(Metrics, Texts) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(59.4), "59s");
  EXPECT_EQ(duration_text(3725), "1h 02m");
  EXPECT_EQ(duration_text(90000), "1d 01h");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(count_text(0), "0");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(-1234567), "-1,234,567");
  EXPECT_EQ(memory_text(512), "512 B");
  EXPECT_EQ(memory_text(345000000), "345 MB");
}

TEST(Metrics, TimeLeftForgetsASlowStart) {
  TimeLeft time;
  EXPECT_LT(time.seconds(10), 0);
  time.add(100);
  EXPECT_LT(time.seconds(10), 0);
  for (int i = 0; i < 500; ++i) time.add(1);
  EXPECT_NEAR(time.seconds(10), 10, 0.1);
}

TEST(Process, PagesOfStartUpAreGivenBack) {
  const int64_t before = resident_bytes();
  drop_startup_pages();
  EXPECT_LT(resident_bytes(), before - (int64_t{256} << 10));
}

TEST(Process, PeakFollowsMemory) {
  const int64_t before = peak_resident_bytes();
  EXPECT_GT(before, 1 << 20);
  // Earlier tests of the process may have left the peak above what it holds now.
  const auto below = static_cast<size_t>(std::max<int64_t>(0, before - resident_bytes()));
  Buffer buffer(below + (size_t{64} << 20));
  for (size_t i = 0; i < buffer.bytes(); i += 4096) buffer.data()[i] = std::byte{1};
  EXPECT_GE(peak_resident_bytes() - before, int64_t{32} << 20);
  EXPECT_GE(resident_bytes(), int64_t{64} << 20);
}

}  // namespace
}  // namespace graft
