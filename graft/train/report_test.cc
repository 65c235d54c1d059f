#include "graft/train/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graft/base/file.h"
#include "graft/train/metrics.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

std::vector<Json> run(int64_t steps, int64_t eval_every) {
  std::vector<Json> lines;
  for (int64_t s = 1; s <= steps; ++s) {
    const auto x = static_cast<double>(s);
    StepMetrics m{.step = s,
                  .epoch = x / 300,
                  .loss = 0.07 + 2.8 * std::exp(-x / 60) + 0.12 * std::sin(x * 1.7) * std::exp(-x / 200),
                  .learning_rate = s < 30 ? 4e-3 * x / 30 : 2e-3 * (1 + std::cos(3.14159265 * (x - 30) / 570)),
                  .grad_norm = 0.4 + 3 * std::exp(-x / 40) + 0.2 * std::sin(x),
                  .num_tokens = s * 1000,
                  .tokens_per_second = 5200 + 300 * std::sin(x / 9) + 90 * std::sin(x * 2.3),
                  .step_time = 0.19,
                  .experts = {}};
    lines.push_back(to_json(m));
    if (eval_every > 0 && s % eval_every == 0) {
      lines.push_back(to_json(EvalMetrics{.step = s, .eval_loss = m.loss * 1.1 + 0.02, .eval_tokens = 3094}));
    }
  }
  return lines;
}

Json data_of(const std::string& page) {
  const std::string mark = "const report = ";
  const size_t begin = page.find(mark) + mark.size(), end = page.find(";\n", begin);
  return Json::parse(page.substr(begin, end - begin));
}

TEST(Report, HoldsTheRunAndNeedsNoOtherFile) {
  TrainConfig config;
  config.model = "models/tiny/";
  config.data = "train.jsonl";
  config.lr = 4e-3;
  const std::string page = report_html(make_report(config, run(600, 100)));
  const Json data = data_of(page);
  EXPECT_EQ(data["title"], "tiny");
  EXPECT_EQ(data["train"]["step"].size(), 600u);
  EXPECT_EQ(data["eval"]["step"], (Json{100, 200, 300, 400, 500, 600}));
  EXPECT_FALSE(data["train"].contains("aux_loss"));
  for (const char* outside : {"http:", "https:", "src=", "@import", "url("}) {
    size_t at = page.find(outside);
    if (std::string(outside) == "http:" && at != std::string::npos) {  // the name of SVG, which nothing fetches
      EXPECT_EQ(page.substr(at, 26), "http://www.w3.org/2000/svg");
      at = page.find(outside, at + 1);
    }
    EXPECT_EQ(at, std::string::npos) << outside;
  }
  bool found = false;
  for (const Json& group : data["settings"]) {
    for (const Json& row : group["rows"]) {
      if (row[0] == "lr") found = row[1] == "0.004" && row[2] == true;
      EXPECT_TRUE(row[0] != "beta1" || row[2] == false);
    }
  }
  EXPECT_TRUE(found);
}

TEST(Report, LongRunsAreThinnedAndGapsStay) {
  std::vector<Json> lines = run(50000, 0);
  lines[7]["loss"] = nullptr;
  const std::string page = report_html(make_report({}, lines));
  EXPECT_LT(page.size(), 400000u);
  const Json data = data_of(page);
  EXPECT_EQ(data["train"]["step"].size(), 2000u);
  EXPECT_EQ(data["train"]["step"].back(), 50000);

  std::vector<Json> few = run(10, 0);
  few[3]["loss"] = nullptr;
  EXPECT_TRUE(data_of(report_html(make_report({}, few)))["train"]["loss"][3].is_null());
  EXPECT_EQ(data_of(report_html(make_report({}, {})))["train"]["step"].size(), 0u);
}

TEST(Report, LoadsOfExpertsByLayer) {
  std::vector<Json> lines = run(500, 0);
  EXPECT_TRUE(data_of(report_html(make_report({}, lines)))["loads"].empty());
  for (size_t i = 0; i < lines.size(); ++i) lines[i]["share_max_of_layers"] = {0.25, i < 250 ? 0.5 : 0.3, 1.0};
  lines[4]["share_max_of_layers"] = "?";  // another program wrote it
  const Json loads = data_of(report_html(make_report({}, lines)))["loads"];
  ASSERT_EQ(loads["layers"].size(), 3u);
  EXPECT_LE(loads["step"].size(), 240u);
  EXPECT_EQ(loads["layers"][0].size(), loads["step"].size());
  EXPECT_EQ(loads["layers"][1].front(), 0.5);
  EXPECT_EQ(loads["layers"][1].back(), 0.3);
  EXPECT_EQ(loads["step"].back(), 500);
}

TEST(Report, NamesCannotBreakThePage) {
  TrainConfig config;
  config.model = "x</script><script>alert(1)</script><!--\xFF";
  config.targets = "\"<b>'&";
  const std::string page = report_html(make_report(config, run(3, 0)));
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
  EXPECT_NE(data_of(page)["title"].get<std::string>().find("<!--"), std::string::npos);
}

TEST(Report, IsWrittenFromTheFolder) {
  const test::TempDir folder;
  {
    MetricsLog log(folder / "metrics.jsonl", 0);
    log.write(StepMetrics{.step = 1, .loss = 2.5, .num_tokens = 10, .step_time = 2, .experts = {}});
  }
  write_report(folder.path(), {}, {{"Peak memory", "1.24 GB"}});
  const Json data = data_of(read_file(folder / "report.html"));
  EXPECT_EQ(data["summary"].back(), (Json{"Peak memory", "1.24 GB"}));
  EXPECT_EQ(data["train"]["loss"], Json::array({2.5}));
}

// GRAFT_REPORT_DEMO=file.html writes a page to look at.
TEST(Report, Demo) {
  const char* path = std::getenv("GRAFT_REPORT_DEMO");
  if (path == nullptr) GTEST_SKIP() << "set GRAFT_REPORT_DEMO to a file";
  TrainConfig config;
  config.model = "models/pystd-5m";
  config.data = "data/shelfql";
  config.out = "out";
  config.lr = 4e-3;
  config.schedule = "cosine";
  config.targets = "all-linear";
  config.warmup = parse_steps_or_share("5%");
  config.max_length = 256;
  Report report = make_report(config, run(600, 100));
  report.summary.emplace_back("Peak memory", "412 MB");
  write_file(path, report_html(report));
}

}  // namespace
}  // namespace graft
