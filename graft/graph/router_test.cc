#include "graft/graph/router.h"

#include <gtest/gtest.h>

#include <atomic>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/kernels/algorithm.h"
#include "graft/kernels/registry.h"
#include "tests/support/bad_case.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

TEST(Router, CandidatesAreLevelsWithCodeAndPowersOfTwoOfThreads) {
  const std::vector<RouteChoice> all = Router::candidates(6);
  EXPECT_EQ(all.front().level, CpuLevel::kScalar);
  EXPECT_EQ(all.back().level, cpu_level());
  std::vector<int> threads;
  for (const RouteChoice& c : all) {
    if (c.level == CpuLevel::kScalar) threads.push_back(c.threads);
  }
  EXPECT_EQ(threads, (std::vector<int>{1, 2, 4, 6}));
}

TEST(Router, EstimatorTakesThreadsWhereTheyPayForTheRegion) {
  Router router;
  router.set_constants(
      {.gbps_one = 10, .gbps_all = 20, .gflops_one = 100, .gflops_all = 200, .start_ns = 50, .region_ns = 2500});
  const Route small = router.route("map_add", 1000, 12e3, 1e3, 2);
  EXPECT_FALSE(small.measured);
  EXPECT_EQ(small.best.threads, 1);
  EXPECT_EQ(small.best.level, cpu_level());
  EXPECT_NEAR(small.best.ns, 12e3 / 10 + 50, 1e-6);
  const Route large = router.route("map_add", 1000000, 12e6, 1e6, 2);
  EXPECT_EQ(large.best.threads, 2);
  EXPECT_NEAR(large.best.ns, 12e6 / 20 + 2550, 1e-3);
  EXPECT_EQ(router.route("map_add", 1000000, 12e6, 1e6, 1).best.threads, 1);
  for (size_t i = 1; i < large.considered.size(); ++i) EXPECT_LE(large.considered[i - 1].ns, large.considered[i].ns);
}

// Two choices whose lines cross between the measured sizes 1,000 and 10,000.
Router crossing() {
  Router router;
  router.learn("map_exp", {10000, {{CpuLevel::kScalar, 1, 9000}, {CpuLevel::kScalar, 2, 5000}}});
  router.learn("map_exp", {1000, {{CpuLevel::kScalar, 1, 900}, {CpuLevel::kScalar, 2, 3000}}});
  return router;
}

TEST(Router, MeasuredTimesAreReadBetweenSizes) {
  const Router router = crossing();
  EXPECT_TRUE(router.route("map_exp", 1000, 0, 0, 2).measured);
  EXPECT_EQ(router.route("map_exp", 1, 0, 0, 2).best.threads, 1);
  EXPECT_EQ(router.route("map_exp", 1000, 0, 0, 2).best.ns, 900);
  EXPECT_EQ(router.route("map_exp", 2000, 0, 0, 2).best.threads, 1);
  const Route between = router.route("map_exp", 8000, 0, 0, 2);
  EXPECT_EQ(between.best.threads, 2);
  EXPECT_GT(between.best.ns, 3000);
  EXPECT_LT(between.best.ns, 5000);
  EXPECT_EQ(router.route("map_exp", 1 << 30, 0, 0, 2).best.threads, 2);
  EXPECT_EQ(router.route("map_exp", 1 << 30, 0, 0, 1).best.threads, 1);  // what is allowed
}

// A table of a time without a cap: what the cap takes away is neither routed nor taken for the time of another variant.
TEST(Router, MeasuredTimesAboveTheLevelInForceAreLeftOut) {
  const std::vector<CpuLevel> levels = cpu_levels_available();
  if (levels.size() < 2) GTEST_SKIP() << "scalar code alone";
  Router router;
  router.learn("map_exp", {1000, {{levels.back(), 1, 10}, {CpuLevel::kScalar, 1, 900}}});
  const Route all = router.route("map_exp", 1000, 0, 0, 1);
  EXPECT_EQ(all.best.ns, 10);
  const CpuLevelScope cap(CpuLevel::kScalar);
  const Route route = router.route("map_exp", 1000, 0, 0, 1);
  EXPECT_TRUE(route.measured);
  EXPECT_EQ(route.best.level, CpuLevel::kScalar);
  EXPECT_EQ(route.best.ns, 900);
}

TEST(Router, TableSurvivesTheFile) {
  const test::TempDir dir;
  const std::string path = dir / "cache/graft/routes.json";  // makes the folders
  crossing().save(path);
  EXPECT_EQ(Router::load(path).to_json(), crossing().to_json());
}

TEST(Router, RefusesTablesThatAreBrokenOrForeign) {
  const auto fault = [](auto&& edit) {
    Json table = crossing().to_json();
    edit(table);
    return test::error_of([&] { Router::from_json(table, "routes.json"); });
  };
  EXPECT_EQ(fault([](Json&) {}), "");
  const auto has = [&](std::string_view part, auto&& edit) {
    const std::string what = fault(edit);
    EXPECT_NE(what.find(part), std::string::npos) << what << " lacks " << part;
    EXPECT_EQ(what.find('\n'), std::string::npos);
  };
  has("'format' is 9", [](Json& t) { t["format"] = 9; });
  has("'format' is missing", [](Json& t) { t.erase("format"); });
  has("measured on a CPU called \"Other\"", [](Json& t) { t["cpu"] = "Other"; });
  has("number of cores of 99999", [](Json& t) { t["cores"] = 99999; });
  has("by the build", [](Json& t) { t["build"] = "x"; });
  has("kernel 'map_none' is unknown", [](Json& t) { t["kernels"]["map_none"] = t["kernels"]["map_exp"]; });
  has("region_ns is", [](Json& t) { t["constants"]["region_ns"] = "1"; });
  has("ns is", [](Json& t) { t["kernels"]["map_exp"][0]["choices"][0]["ns"] = -1; });
  has("threads", [](Json& t) { t["kernels"]["map_exp"][0]["choices"][0]["threads"] = 1e9; });
  has("variant \"sse9\"", [](Json& t) { t["kernels"]["map_exp"][0]["choices"][0]["variant"] = "sse9"; });
  if (cpu_level_detected() != CpuLevel::kNeon)
    has("variant \"neon\", which this CPU lacks",
        [](Json& t) { t["kernels"]["map_exp"][0]["choices"][0]["variant"] = "neon"; });
  if (cpu_level_detected() != CpuLevel::kAmx)
    has("variant \"amx\", which this CPU lacks",
        [](Json& t) { t["kernels"]["map_exp"][0]["choices"][0]["variant"] = "amx"; });
  has("no choices", [](Json& t) { t["kernels"]["map_exp"][0]["choices"] = Json::array(); });
  has("expected an object", [](Json& t) { t = Json::array(); });
  const test::TempDir dir;
  const std::string path = dir / "routes.json";
  write_file(path, "{\"format\": 1, ");
  EXPECT_NE(test::error_of([&] { Router::load(path); }).find(path), std::string::npos);
  EXPECT_NE(test::error_of([&] { crossing().save(path + "/x/y.json"); }), "");  // below a file
  EXPECT_NE(test::error_of([&] { crossing().save(""); }), "");
}

TEST(Router, ScopeCapsLevelAndThreadsAndPutsThemBack) {
  ThreadPool pool(3);
  const CpuLevel level = cpu_level();
  {
    const RouteScope scope({CpuLevel::kScalar, 2, 0}, pool);
    EXPECT_EQ(cpu_level(), CpuLevel::kScalar);
    EXPECT_EQ(pool.num_threads(), 2);
    std::vector<int> seen(100, 0);
    std::atomic<int> most = 0;
    pool.parallel(100, [&](int64_t task, int worker) {
      ++seen[static_cast<size_t>(task)];
      int before = most.load();
      while (worker > before && !most.compare_exchange_weak(before, worker)) {
      }
    });
    EXPECT_EQ(seen, std::vector<int>(100, 1));
    EXPECT_LT(most.load(), 2);
    {
      const RouteScope inner({level, 9, 0}, pool);  // never raises
      EXPECT_EQ(cpu_level(), CpuLevel::kScalar);
      EXPECT_EQ(pool.num_threads(), 2);
    }
  }
  EXPECT_EQ(cpu_level(), level);
  EXPECT_EQ(pool.num_threads(), 3);
}

TEST(AlgorithmRules, DependOnTheShapeAlone) {
  const auto choice = [](std::string_view operation, AlgorithmShape shape) {
    return find_algorithm_rule(operation)->choose(shape).kernel;
  };
  EXPECT_EQ(choice("sort", {.size = 32768}), "sort_bitonic");
  EXPECT_EQ(choice("sort", {.size = 32767}), "sort_radix");
  EXPECT_EQ(choice("sort", {.size = 65536}), "sort_radix");
  EXPECT_EQ(choice("median", {.size = 8192}), "sort_radix");
  EXPECT_EQ(choice("median", {.size = 8193}), "median_select");
  EXPECT_EQ(choice("topk", {.size = 1000, .count = 99}), "topk_select");
  EXPECT_EQ(choice("topk", {.size = 1000, .count = 100}), "sort_bitonic_kv");
  EXPECT_EQ(choice("softmax", {.size = 8192}), "softmax_stable");
  EXPECT_EQ(choice("softmax", {.size = 8193}), "softmax_online");
  EXPECT_EQ(choice("attention", {.size = 2048}), "attention_flash");
  EXPECT_EQ(choice("fft", {.size = 256}), "fft_radix4");
  EXPECT_EQ(choice("fft", {.size = 64}), "fft_radix2");
  EXPECT_EQ(choice("fft", {.size = 512}), "fft_radix2");
  EXPECT_EQ(choice("fft", {.size = 512, .real = true}), "fft_real");
  EXPECT_EQ(choice("convolution", {.size = 1000, .count = 64}), "conv1d");
  EXPECT_EQ(choice("convolution", {.size = 1000, .count = 65}), "fft_conv1d");
  EXPECT_EQ(choice("vector_norm", {.size = 100001}), "reduce_l2");
  EXPECT_EQ(choice("sparse_matvec", {.density = 0.04}), "spmv_csr");
  EXPECT_EQ(choice("adam", {.weight_decay = true}), "opt_adamw");
  EXPECT_EQ(find_algorithm_rule("nothing"), nullptr);
  EXPECT_EQ(algorithm_rule_of("fir_filter")->operation, "fir");
  EXPECT_EQ(algorithm_rule_of("map_exp"), nullptr);
  for (const AlgorithmRule& rule : algorithm_rules()) EXPECT_FALSE(rule.choose({}).why.empty()) << rule.operation;
}

}  // namespace
}  // namespace graft
