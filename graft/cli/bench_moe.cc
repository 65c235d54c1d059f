#include "graft/bench/bench_moe.h"

#include <cstdio>
#include <optional>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/strings.h"
#include "graft/bench/moe_page.h"
#include "graft/cli/common.h"

namespace graft {
namespace {

struct MoeFlags {
  CommonFlags common;
  std::vector<std::string> only;
  int trials = 10, warmup = 3;
  bool serve = false;
  std::string from, html;
};

const MoeScenario& scenario_of(const std::string& id) {
  if (const MoeScenario* s = find_moe_scenario(id)) return *s;
  std::vector<std::string> ids;
  for (const MoeScenario& s : moe_scenarios()) ids.push_back(s.id);
  const std::string near = nearest_name(id, ids);
  throw UsageError(
      near.empty() ? fmt::format("--only '{}' is no scenario, known are {}", printable(id, 40), fmt::join(ids, ", "))
                   : fmt::format("--only '{}' is no scenario; did you mean {}?", printable(id, 40), near));
}

// Answers {"id","runs"?} with the times of that many runs. The scenario asked for last stays ready.
void serve_moe(int threads, uint64_t seed) {
  std::optional<MoeCase> bench;
  std::string ready;
  serve_lines([&](const Json& ask) {
    const std::string id = ask.value("id", "");
    const MoeScenario* scenario = find_moe_scenario(id);
    GRAFT_CHECK(scenario != nullptr, "scenario '{}' is unknown", printable(id, 40));
    if (ready != id) {
      ready.clear();
      bench.emplace(*scenario, threads, seed);
      ready = id;
    }
    std::vector<int64_t> wall, cpu;
    const int64_t runs = std::clamp<int64_t>(ask.value("runs", int64_t{1}), 1, 100000);
    for (int64_t i = 0; i < runs; ++i) {
      const MoeTrial trial = bench->run();
      wall.push_back(trial.wall_ns), cpu.push_back(trial.cpu_ns);
    }
    return Json{{"id", id}, {"timings_ns", wall}, {"cpu_times_ns", cpu}, {"flops", bench->flops()}};
  });
}

void print_scenario(const Json& s) {
  const Json& derived = s.at("derived");
  const double median = s.at("median_ns");
  fmt::print("{:<20} {:>10.2f} us (p95 {:>9.2f}, iqr {:>8.2f})  {:>6.1f} GFLOP/s", s.at("id").get<std::string>(),
             median * 1e-3, s.at("p95_ns").get<double>() * 1e-3, s.at("iqr_ns").get<double>() * 1e-3,
             derived.at("gflops").get<double>());
  if (const double tokens = s.at("throughput_tokens_per_sec"); tokens > 0) fmt::print("  {:>9.0f} tokens/s", tokens);
  fmt::print("  {:>5.1f} MB", s.at("memory").at("peak_rss_bytes").get<double>() * 1e-6);
  if (derived.contains("speed_up")) fmt::print("  speed-up {:.2f}", derived.at("speed_up").get<double>());
  fmt::print("\n");
}

void run_moe(const MoeFlags& flags) {
  MoeBenchOptions options;
  options.threads = flags.common.threads, options.seed = flags.common.seed;
  options.warmup = flags.warmup, options.trials = flags.trials;
  for (const std::string& id : flags.only) options.scenarios.push_back(&scenario_of(id));
  if (flags.only.empty()) {
    for (const MoeScenario& s : moe_scenarios()) options.scenarios.push_back(&s);
  }
  const bool json = flags.common.json, quiet = flags.common.quiet;
  // Output begins when the first run is over, so that its first byte tells how long a process takes to get there.
  const auto first = [&] {
    if (json) {
      fmt::print("{{\"scenarios\":[");
    } else if (!quiet) {
      fmt::print("seed {}, {}\n", options.seed, cpu_model_name());
    }
    std::fflush(stdout);
  };
  Json list = Json::array();
  bench_moe(options, first, [&](const Json& scenario) {
    if (json) {
      fmt::print("{}{}", list.empty() ? "" : ",", scenario.dump());
    } else if (!quiet) {
      print_scenario(scenario);
    }
    std::fflush(stdout);
    list.push_back(scenario);
  });
  const Json about = {{"seed", options.seed},
                      {"threads", options.threads},
                      {"cpu", cpu_model_name()},
                      {"level", std::string(cpu_level_name(cpu_level()))}};
  if (json) fmt::print("],{}\n", about.dump().substr(1));
  if (flags.html.empty()) return;
  Json report = about;
  report["scenarios"] = std::move(list);
  write_file(flags.html, moe_page(report));
}

}  // namespace

void add_bench_moe(CLI::App& group) {
  auto flags = std::make_shared<MoeFlags>();
  flags->common.seed = 42, flags->common.threads = 1;
  auto* command =
      group.add_subcommand("moe", "22 scenarios of small mixtures of experts: steps, passes, kernels, scaling");
  command->add_option("--only", flags->only, "Scenarios, by id (default: all)")->delimiter(',')->type_name("ID,…");
  command->add_option("--trials", flags->trials, "Timed runs of each")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--warmup", flags->warmup, "Runs before them")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--threads", flags->common.threads, "Threads of each model; parallel_TN runs N models at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--seed", flags->common.seed, "Names the weights")->capture_default_str()->type_name("N");
  command->add_flag("--json", flags->common.json, "Print JSON on standard output and nothing else");
  command->add_flag("--quiet", flags->common.quiet, "Print errors only");
  command->add_option("--html", flags->html, "Write a page of the results too")->type_name("FILE");
  command->add_option("--from", flags->from, "Results to make the page of, instead of measuring: what --json printed")
      ->type_name("FILE");
  command->add_flag("--serve", flags->serve,
                    "Answer requests on standard input, one JSON object a line, for scripts that time peers in turns");
  command->footer("Example:\n  graft bench moe --only mem_train_step,dispatch_warm --json");
  command->callback([flags] {
    if (flags->serve) return serve_moe(flags->common.threads, flags->common.seed);
    if (flags->from.empty()) return run_moe(*flags);
    if (flags->html.empty()) throw UsageError("--from needs --html, the file to write");
    write_file(flags->html, moe_page(read_json(flags->from)));
  });
}

}  // namespace graft
