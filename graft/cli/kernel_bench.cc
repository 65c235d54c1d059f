#include "graft/bench/kernel_bench.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/bench/fused.h"
#include "graft/bench/kernel_check.h"
#include "graft/bench/kernel_page.h"
#include "graft/bench/kernel_tune.h"
#include "graft/cli/common.h"
#include "graft/cli/kernel.h"

namespace graft {
namespace {

struct BenchFlags {
  CommonFlags common;
  std::vector<std::string> names, domains, sizes = {"64K", "1M", "10M"}, variants;
  std::vector<std::string> threads;
  std::string html;
  bool routed = false, serve = false;
  double seconds = 0.1;
};

Json timing_json(const KernelTiming& t) {
  return {{"kernel", t.kernel},
          {"domain", t.domain},
          {"variant", t.variant},
          {"size", t.size},
          {"elements", t.elements},
          {"shape", t.shape},
          {"threads", t.threads},
          {"median_ns", t.median_ns},
          {"q1_ns", t.q1_ns},
          {"q3_ns", t.q3_ns},
          {"least_ns", t.least_ns},
          {"samples", t.samples},
          {"bytes", t.bytes},
          {"flops", t.flops},
          {"gbps", t.gbps()},
          {"gflops", t.gflops()},
          {"limit", t.limit},
          {"limit_rate", t.roof},
          {"limit_share", t.limit_share},
          {"beyond_limit", t.beyond_limit()}};
}

// The machine's own figures, measured now: peak and bandwidth of every mix in every level, for each number of threads.
Json machine_json(KernelBench& bench, const std::vector<int>& threads) {
  const CacheSizes& cache = cache_sizes();
  Json roofs = Json::array();
  for (const int n : threads) {
    for (const RoofFigure& f : measure_roofs(bench.pool(n), bench.roofs(n)))
      roofs.push_back(
          {{"threads", n}, {"level", f.level}, {"mix", mix_name(f.mix)}, {"bytes", f.bytes}, {"gbps", f.gbps}});
    roofs.push_back({{"threads", n}, {"level", "FMA"}, {"gflops", bench.peak(n)}});
  }
  return {{"cpu", cpu_model_name()}, {"level", cpu_level_name(cpu_level())},
          {"cores", usable_cores()}, {"l1", cache.l1},
          {"l2", cache.l2},          {"last_cache", cache.last},
          {"roofs", roofs}};
}

void print_machine(const Json& machine) {
  fmt::print("{}; {}; {} cores; caches {} KiB, {} KiB, {} MiB\n", machine["cpu"].get<std::string>(),
             machine["level"].get<std::string>(), machine["cores"].get<int>(), machine["l1"].get<int64_t>() >> 10,
             machine["l2"].get<int64_t>() >> 10, machine["last_cache"].get<int64_t>() >> 20);
  for (const Json& r : machine["roofs"]) {
    if (r["level"] == "FMA") {
      fmt::print("{} threads: multiply-adds {:.0f} GFLOP/s\n", r["threads"].get<int>(), r["gflops"].get<double>());
    } else if (r["mix"] == "read") {
      fmt::print("{} threads, {:<6} GB/s:", r["threads"].get<int>(), r["level"].get<std::string>());
    }
    if (r["level"] != "FMA") {
      fmt::print("  {} {:.1f}{}", r["mix"].get<std::string>(), r["gbps"].get<double>(),
                 r["mix"] == "write" ? "\n" : "");
    }
  }
}

std::string time_text(double ns) {
  return ns < 1e3   ? fmt::format("{:.0f} ns", ns)
         : ns < 1e6 ? fmt::format("{:.2f} us", ns / 1e3)
                    : fmt::format("{:.2f} ms", ns / 1e6);
}

void print_timing(const KernelTiming& t) {
  fmt::print("{:<34} {:>6} {:>2} {:<12} {:>10} {:>4.0f} %  {:>6.1f} GB/s {:>7.1f} GFLOP/s  {:>4.0f} % of {}{}\n",
             t.kernel, t.size, t.threads, t.variant, time_text(t.median_ns), 50 * (t.q3_ns - t.q1_ns) / t.median_ns,
             t.gbps(), t.gflops(), 100 * t.limit_share, t.limit, t.beyond_limit() ? "  BEYOND THE LIMIT" : "");
}

// A fused kernel beside the single kernels that give its result.
Json fused_json(const FusedTiming& t, const std::string& size) {
  return {{"kernel", t.kernel},   {"size", size},
          {"threads", t.threads}, {"unfused", t.steps},
          {"bytes", t.bytes},     {"unfused_bytes", t.unfused_bytes},
          {"median_ns", t.ns},    {"unfused_ns", t.unfused_ns},
          {"speed", t.speed()},   {"bytes_saved", t.bytes_saved()}};
}
void print_fused(const FusedTiming& t, const std::string& size) {
  fmt::print("{:<34} {:>6} {:>2} fused {:.2f} x unfused ({}); {:.0f} % of the bytes saved\n", t.kernel, size, t.threads,
             t.speed(), t.steps, 100 * t.bytes_saved());
}

// Numbers of threads, "1,2".
std::vector<int> parse_threads(const std::vector<std::string>& words) {
  std::set<int> threads;
  std::string faults;
  for (const std::string& word : words) {
    int n = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n);
    if (error != std::errc() || end != word.data() + word.size() || n < 1 || n > 1024)
      faults += fmt::format("{}'{}'", faults.empty() ? "" : ", ", printable(word, 20));
    threads.insert(n);
  }
  if (!faults.empty()) throw UsageError(fmt::format("--threads {}, expected numbers from 1 to 1024", faults));
  if (words.empty()) threads = {1, usable_cores()};
  return {threads.begin(), threads.end()};
}

// Answers {"kernel","size","threads","variant"?,"seconds"?} with a timing. "dump": FILE writes the call's inputs and outputs there first.
void serve() {
  KernelBench bench;
  std::string prepared;
  serve_lines([&](const Json& ask) {
    const std::string name = ask.value("kernel", ""), size = ask.value("size", "");
    const KernelInfo* kernel = find_kernel(name);
    GRAFT_CHECK(kernel != nullptr, "kernel '{}' is unknown", printable(name, 40));
    if (prepared != name + " " + size) {
      prepared.clear();
      bench.prepare(*kernel, parse_bench_size(size));
      prepared = name + " " + size;
    }
    if (const auto file = ask.find("dump"); file != ask.end()) {
      dump_call(bench.call(), file->get<std::string>());
    }
    TimingOptions options;
    options.variant = ask.value("variant", std::string(cpu_level_name(cpu_level())));
    options.threads = std::clamp(ask.value("threads", 1), 1, 1024);
    options.seconds = std::clamp(ask.value("seconds", 0.05), 0.0, 60.0);
    options.with_limit = ask.value("limit", true);
    return timing_json(bench.time(options));
  });
}

// The router's choice beside every other, for each kernel and size.
void bench_routed(const BenchFlags& flags, const std::vector<const KernelInfo*>& kernels, std::vector<BenchSize> sizes,
                  int threads) {
  if (sizes.empty()) {
    for (const int64_t n : routed_sizes()) sizes.push_back({fmt::format("{}", n), n, 0});
  }
  KernelBench bench;
  Router router = Router::of_this_machine();
  router.set_constants(measure_constants(bench, threads));
  Json results = Json::array();
  std::vector<double> distances;
  int64_t estimated = 0;
  for (const KernelInfo* kernel : kernels) {
    for (const BenchSize& size : sizes) {
      try {
        bench.prepare(*kernel, size, flags.common.seed, /*with_reference=*/false);
      } catch (const Error& e) {
        fmt::print(stderr, "error: {}\n", e.what());
        continue;
      }
      const RoutedTiming r = compare_route(bench, *kernel, router, threads, flags.seconds);
      distances.push_back(r.distance());
      estimated += r.measured ? 0 : 1;
      results.push_back({{"kernel", r.kernel},
                         {"size", r.elements},
                         {"variant", cpu_level_name(r.routed.level)},
                         {"threads", r.routed.threads},
                         {"ns", r.routed.ns},
                         {"best_variant", cpu_level_name(r.best.level)},
                         {"best_threads", r.best.threads},
                         {"best_ns", r.best.ns},
                         {"distance", r.distance()},
                         {"measured", r.measured}});
      if (!flags.common.json) {
        fmt::print("{:<34} {:>9} {:<12} {:>2} {:>10}   best {:<12} {:>2} {:>10}  +{:.1f} %\n", r.kernel, r.elements,
                   cpu_level_name(r.routed.level), r.routed.threads, time_text(r.routed.ns),
                   cpu_level_name(r.best.level), r.best.threads, time_text(r.best.ns), 100 * r.distance());
      }
    }
  }
  GRAFT_CHECK(!distances.empty(), "nothing could be timed");
  const auto within = std::count_if(distances.begin(), distances.end(), [](double d) { return d <= 0.05; });
  const double share = static_cast<double>(within) / static_cast<double>(distances.size());
  const double median = Spread::of(distances).median;
  if (flags.common.json) {
    fmt::print("{}\n", Json{{"results", results},
                            {"buckets", distances.size()},
                            {"within_5_percent", share},
                            {"median_distance", median},
                            {"estimated", estimated}}
                           .dump());
  } else {
    fmt::print("{} buckets: {:.1f} % within 5 % of the best, median {:.2f} % from it{}\n", distances.size(),
               100 * share, 100 * median,
               estimated > 0 ? fmt::format("; {} by the estimate (graft kernel tune measures them)", estimated) : "");
  }
}

}  // namespace

void add_kernel_bench(CLI::App& group) {
  auto flags = std::make_shared<BenchFlags>();
  auto* command = group.add_subcommand("bench", "Time kernels beside this machine's measured limits");
  command->add_option("name", flags->names, "Kernels or domains; all where none is named")->type_name("NAME|DOMAIN");
  command->add_option("--domain", flags->domains, "Kernels of a domain")->type_name("DOMAIN");
  command
      ->add_option(
          "--sizes,--size", flags->sizes,
          "Elements of the main input (K = 1024, M = a million), or 4xLLC: a working set of four last-level caches")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("LIST");
  command->add_option("--threads", flags->threads, "Numbers of threads (default: 1 and the cores this process may use)")
      ->delimiter(',')
      ->type_name("LIST");
  command->add_option("--variant", flags->variants, "Variants, or all (default: the best of this CPU)")
      ->delimiter(',')
      ->type_name("all|LIST");
  command->add_option("--seconds", flags->seconds, "Time for each figure")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str()
      ->type_name("S");
  command->add_flag("--routed", flags->routed,
                    "How far the router's choice is from the best, at sizes from 256 to 10M (or those of --sizes)");
  command->add_option("--html", flags->html, "Write a page of the results too")->type_name("FILE");
  command->add_flag("--serve", flags->serve,
                    "Answer requests on standard input, one JSON object a line, for scripts that time peers in turns");
  command->add_option("--seed", flags->common.seed, "Names the inputs")->capture_default_str()->type_name("N");
  command->add_flag("--json", flags->common.json, "Print JSON on standard output and nothing else");
  command->add_flag("--quiet", flags->common.quiet, "Print errors only");
  command->footer("Example:\n  graft kernel bench softmax_stable --sizes 1M,10M --threads 1,2");
  command->callback([flags, command] {
    if (flags->serve) return serve();
    flags->names.insert(flags->names.end(), flags->domains.begin(), flags->domains.end());
    std::vector<const KernelInfo*> kernels;
    std::vector<BenchSize> sizes;
    std::string faults;
    const auto take = [&](auto&& f) {
      try {
        f();
      } catch (const Error& e) {
        faults += fmt::format("{}{}", faults.empty() ? "" : "\n  ", e.what());
      }
    };
    take([&] { kernels = select_kernels(flags->names); });
    for (const std::string& text : flags->sizes) take([&] { sizes.push_back(parse_bench_size(text)); });
    if (!faults.empty()) throw UsageError(faults);
    const std::vector<int> threads = parse_threads(flags->threads);
    std::vector<std::string> variants;
    if (flags->variants.empty()) variants = {std::string(cpu_level_name(cpu_level()))};
    for (const std::string& v : flags->variants) {
      for (const CpuLevel level : kernel_levels(v)) variants.emplace_back(cpu_level_name(level));
    }

    if (flags->routed)
      return bench_routed(*flags, kernels, command->count("--sizes") > 0 ? sizes : std::vector<BenchSize>(),
                          threads.back());
    KernelBench bench;
    const Json machine = machine_json(bench, threads);
    const bool json = flags->common.json;
    if (!json) print_machine(machine);
    Json results = Json::array(), errors = Json::array(), fused = Json::array();
    const auto report = [&](const std::string& what) {
      fmt::print(stderr, "error: {}\n", what);
      errors.push_back(what);
    };
    for (const KernelInfo* kernel : kernels) {
      for (const BenchSize& size : sizes) {
        try {
          bench.prepare(*kernel, size, flags->common.seed);
        } catch (const Error& e) {
          report(e.what());
          continue;
        }
        for (const int n : threads) {
          for (const std::string& variant : variants) {
            try {
              const KernelTiming t = bench.time({variant, n, flags->seconds});
              if (t.beyond_limit()) {
                report(
                    fmt::format("{} {} under {} with {} threads: {:.0f} % of the measured limit ({}); its bytes, its "
                                "operations or the clock are wrong",
                                t.kernel, t.size, variant, n, 100 * t.limit_share, t.limit));
              }
              results.push_back(timing_json(t));
              if (!json) print_timing(t);
            } catch (const Error& e) {
              report(e.what());
            }
          }
          if (Unfused::knows(*kernel)) {
            const FusedTiming t = time_fused(bench.pool(n), *kernel, bench.call(), flags->seconds);
            fused.push_back(fused_json(t, size.label));
            if (!json) print_fused(t, size.label);
          }
        }
      }
    }
    const Json whole = {{"machine", machine}, {"results", results}, {"fused", fused}, {"errors", errors}};
    if (json) fmt::print("{}\n", whole.dump());
    if (!flags->html.empty()) write_file(flags->html, kernel_page(whole));
    if (!errors.empty()) throw ExitCode{1};
  });
}

void add_kernel_page(CLI::App& group) {
  struct Flags {
    std::string report, html;
  };
  auto flags = std::make_shared<Flags>();
  auto* command = group.add_subcommand("page", "A page of a benchmark's results, for a browser");
  command->add_option("report", flags->report, "What kernel bench --json printed, or ./dev bench kernels wrote")
      ->required()
      ->type_name("FILE");
  command->add_option("--html", flags->html, "File to write")->required()->type_name("FILE");
  command->footer("Example:\n  graft kernel page kernels.json --html kernels.html");
  command->callback([flags] { write_file(flags->html, kernel_page(read_json(flags->report))); });
}

}  // namespace graft
