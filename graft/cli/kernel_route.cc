#include <algorithm>
#include <chrono>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/bench/kernel_check.h"
#include "graft/bench/kernel_tune.h"
#include "graft/cli/common.h"
#include "graft/cli/kernel.h"
#include "graft/kernels/algorithm.h"

namespace graft {
namespace {

std::string ns_text(double ns) {
  return ns < 1e3   ? fmt::format("{:.0f} ns", ns)
         : ns < 1e6 ? fmt::format("{:.2f} us", ns / 1e3)
                    : fmt::format("{:.2f} ms", ns / 1e6);
}

struct TuneFlags {
  CommonFlags common;
  std::vector<std::string> names;
  bool quick = false;
};

void run_tune(const TuneFlags& flags) {
  std::vector<const KernelInfo*> kernels;
  try {
    kernels = select_kernels(flags.names);
  } catch (const Error& e) {
    throw UsageError(e.what());
  }
  const Runtime runtime(flags.common);
  const std::string path = Router::cache_path();
  GRAFT_CHECK_HINT(!path.empty(), "set XDG_CACHE_HOME or HOME", "there is no folder for the table of routes");
  TuneOptions options;
  options.quick = flags.quick;
  options.seconds = flags.quick ? 16 : 150;
  options.threads = flags.common.threads > 0 ? flags.common.threads : usable_cores();
  const bool bar = stderr_is_terminal() && !flags.common.quiet;
  options.progress = [&](const std::string& line) {
    if (bar) fmt::print(stderr, "\r\x1b[K{}", line);
  };
  KernelBench bench;
  const auto start = std::chrono::steady_clock::now();
  Router tuned = tune_kernels(bench, kernels, options);
  if (bar) fmt::print(stderr, "\r\x1b[K");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  int64_t sizes = 0, choices = 0;
  const Json table = tuned.to_json();
  for (const auto& [name, rows] : table["kernels"].items()) {
    for (const Json& row : rows) ++sizes, choices += static_cast<int64_t>(row["choices"].size());
  }
  if (!flags.names.empty()) {  // the others keep what they have
    try {
      Router all = path_exists(path) ? Router::load(path) : Router();
      all.merge(tuned);
      tuned = all;
    } catch (const Error& e) {
      fmt::print(stderr, "warning: {}; a new table is begun\n", e.what());
    }
  }
  std::string fault;
  try {
    tuned.save(path);
  } catch (const Error& e) {
    fault = e.what();
    fmt::print(stderr, "error: {}\nhint: {}\n", fault,
               e.hint().empty() ? "set XDG_CACHE_HOME to a folder that can be written" : e.hint());
  }
  if (flags.common.json) {
    fmt::print("{}\n", Json{{"path", path},
                            {"saved", fault.empty()},
                            {"seconds", seconds},
                            {"kernels", kernels.size()},
                            {"buckets", sizes},
                            {"choices", choices},
                            {"table", tuned.to_json()}}
                           .dump());
  } else {
    fmt::print("{} kernels, {} sizes, {} choices measured in {:.0f} s{}\n", kernels.size(), sizes, choices, seconds,
               fault.empty() ? "; table in " + path : "; not saved");
  }
  if (!fault.empty()) throw ExitCode{1};
}

struct RouteFlags {
  CommonFlags common;
  std::string name, size = "1M";
};

// What the rules of section 24 look at, from a call's inputs and parameters.
AlgorithmShape shape_of(const AlgorithmRule& rule, const KernelCall& call, int64_t elements) {
  AlgorithmShape shape;
  shape.size = elements;
  const auto last = [&](const char* name, size_t from_end) {
    if (!call.has_input(name)) return int64_t{0};
    const std::vector<int64_t>& dims = call.in_shape(name);
    return dims.size() >= from_end ? dims[dims.size() - from_end] : int64_t{0};
  };
  if (rule.operation == "softmax") shape.size = last("x", 1);
  if (rule.operation == "attention") shape.size = last("k", 2);
  if (rule.operation == "cosine") shape.count = last("a", 2);
  if (rule.operation == "topk") shape.count = call.integer("k", 100);
  if (rule.operation == "convolution" || rule.operation == "fir") shape.count = std::max(last("w", 1), last("h", 1));
  if (rule.operation == "fft") shape.real = last("x", 2) == 0, shape.size = shape.real ? last("x", 1) : last("x", 2);
  return shape;
}

Json choice_json(const RouteChoice& c) {
  return {{"variant", cpu_level_name(c.level)}, {"threads", c.threads}, {"ns", c.ns}};
}

// What decides at a size, and the numbers behind it.
void run_route(const RouteFlags& flags) {
  BenchSize size;
  const AlgorithmRule* rule = find_algorithm_rule(flags.name);
  const KernelInfo* kernel = find_kernel(flags.name);
  std::string faults;
  try {
    size = parse_bench_size(flags.size);
    if (size.caches > 0) faults = fmt::format("size '{}', expected elements, as 64K or 1M", flags.size);
  } catch (const Error& e) {
    faults = e.what();
  }
  if (rule == nullptr && kernel == nullptr)
    faults +=
        fmt::format("{}no kernel or operation is called '{}'", faults.empty() ? "" : "\n  ", printable(flags.name, 40));
  if (!faults.empty()) throw UsageError(faults);
  const Runtime runtime(flags.common);
  const int threads = flags.common.threads > 0 ? flags.common.threads : usable_cores();

  KernelBench bench;
  const bool by_operation = kernel == nullptr;
  if (by_operation) {  // the shape decides, and with it the kernel
    for (const std::string_view name : rule->kernels) kernel = kernel == nullptr ? find_kernel(name) : kernel;
    GRAFT_CHECK(kernel != nullptr, "none of {} is in the registry", fmt::join(rule->kernels, ", "));
  } else {
    rule = algorithm_rule_of(kernel->name);
  }
  bench.prepare(*kernel, size, flags.common.seed, /*with_reference=*/false);
  AlgorithmChoice algorithm;
  if (rule != nullptr) algorithm = rule->choose(shape_of(*rule, bench.call(), size.elements));
  if (by_operation && algorithm.kernel != kernel->name) {
    if (const KernelInfo* chosen = find_kernel(algorithm.kernel); chosen != nullptr) {
      kernel = chosen;
      bench.prepare(*kernel, size, flags.common.seed, /*with_reference=*/false);
    }
  }
  const double bytes = kernel->bytes(bench.call()), flops = kernel->flops(bench.call());
  Router router = Router::of_this_machine();
  if (!router.has(kernel->name)) router.set_constants(measure_constants(bench, threads));
  const Route route = router.route(kernel->name, size.elements, bytes, flops, threads);
  const MachineConstants& c = router.constants();
  const double gbps = threads > 1 ? c.gbps_all : c.gbps_one, gflops = threads > 1 ? c.gflops_all : c.gflops_one;
  if (flags.common.json) {
    Json considered = Json::array();
    for (const RouteChoice& choice : route.considered) considered.push_back(choice_json(choice));
    Json out = {{"kernel", kernel->name},
                {"size", size.elements},
                {"shape", inputs_text(bench.call())},
                {"bytes", bytes},
                {"flops", flops},
                {"choice", choice_json(route.best)},
                {"measured", route.measured},
                {"considered", considered},
                {"constants", router.to_json()["constants"]},
                {"outside_contract", kernel->outside_contract}};
    if (rule != nullptr)
      out["algorithm"] = {
          {"operation", rule->operation}, {"rule", rule->rule}, {"kernel", algorithm.kernel}, {"why", algorithm.why}};
    fmt::print("{}\n", out.dump());
    return;
  }
  fmt::print("{} of {} elements: {}; {:.4g} MB, {:.4g} MFLOP\n", kernel->name, size.elements, inputs_text(bench.call()),
             bytes * 1e-6, flops * 1e-6);
  if (rule != nullptr) {
    fmt::print("algorithm: {} (rule of {}: {}); {}. From the shape alone, on every machine\n", algorithm.kernel,
               rule->operation, rule->rule, algorithm.why);
  }
  fmt::print("variant:   {}, {} {}, {}\n", cpu_level_name(route.best.level), route.best.threads,
             route.best.threads == 1 ? "thread" : "threads", ns_text(route.best.ns));
  fmt::print("because:   {}{}\n",
             route.measured ? "the quickest of what graft kernel tune measured here"
                            : "the quickest by the estimate (graft kernel tune measures)",
             kernel->outside_contract.empty() ? "; all give the same bits" : "");
  for (const RouteChoice& choice : route.considered) {
    fmt::print(
        "           {:<12} {:>3} {:<7} {:>10}{}\n", cpu_level_name(choice.level), choice.threads,
        choice.threads == 1 ? "thread" : "threads", ns_text(choice.ns),
        &choice == &route.considered.front() ? "" : fmt::format("  +{:.0f} %", 100 * (choice.ns / route.best.ns - 1)));
  }
  fmt::print(
      "estimate:  max({:.4g} MB / {:.1f} GB/s = {}, {:.4g} MFLOP / {:.0f} GFLOP/s = {}) + start {} with {} threads\n",
      bytes * 1e-6, gbps, ns_text(bytes / gbps), flops * 1e-6, gflops, ns_text(flops / gflops),
      ns_text(c.start_ns + (threads > 1 ? c.region_ns : 0)), threads);
}

}  // namespace

void add_kernel_tune(CLI::App& group) {
  auto flags = std::make_shared<TuneFlags>();
  auto* command =
      group.add_subcommand("tune", "Measure which variant and how many threads are quickest here, and keep the table");
  command->add_option("name", flags->names, "Kernels or domains; all where none is named")->type_name("NAME|DOMAIN");
  command->add_flag("--quick", flags->quick, "Fewer sizes, in 20 seconds instead of 3 minutes");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft kernel tune --quick");
  command->callback([flags] { run_tune(*flags); });
}

void add_kernel_route(CLI::App& group) {
  auto flags = std::make_shared<RouteFlags>();
  auto* command =
      group.add_subcommand("route", "Which algorithm, variant and number of threads a kernel gets, and why");
  command
      ->add_option("name", flags->name,
                   "A kernel, or an operation that several kernels do (sort, softmax, convolution, fft, ...)")
      ->required()
      ->type_name("NAME");
  command->add_option("size", flags->size, "Elements of the main input (K = 1024, M = a million)")
      ->required()
      ->type_name("SIZE");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft kernel route softmax_stable 1M");
  command->callback([flags] { run_route(*flags); });
}

}  // namespace graft
