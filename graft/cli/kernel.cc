#include "graft/cli/kernel.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/bench/kernel_check.h"
#include "graft/cli/common.h"
#include "graft/kernels/algorithm.h"
#include "graft/kernels/registry.h"

namespace graft {
namespace {

// Bytes and FLOPs of a call, for an element of the main input of a large example.
struct PerElement {
  double bytes, flops;
};
PerElement per_element(const KernelInfo& kernel) {
  constexpr int64_t kSize = 4096;
  KernelCall call;
  kernel.example(call, kSize, 0);
  return {kernel.bytes(call) / kSize, kernel.flops(call) / kSize};
}

// What a kernel reads and writes, by its example, and the rule that chooses it.
void add_example(const KernelInfo& kernel, Json& row) {
  KernelCall call;
  kernel.example(call, 4096, 0);
  kernel.prepare(call);
  const auto tensors = [](const auto& map) {
    Json list = Json::array();
    for (const auto& [name, t] : map)
      list.push_back({{"name", name}, {"dtype", dtype_name(t.dtype)}, {"shape", t.shape}});
    return list;
  };
  row["inputs"] = tensors(call.inputs());
  row["outputs"] = tensors(call.outputs());
  row["parameters"] = call.parameters();
  row["in_place"] = kernel.in_place;
  row["outside_contract"] = kernel.outside_contract;
  const AlgorithmRule* rule = algorithm_rule_of(kernel.name);
  row["operation"] = rule != nullptr ? rule->operation : "";
  row["rule"] = rule != nullptr ? rule->rule : "";
}

void add_list(CLI::App& group) {
  auto flags = std::make_shared<CommonFlags>();
  auto* command =
      group.add_subcommand("list", "Name, domain, formula, bytes and operations an element of every kernel");
  add_common_flags(*command, *flags);
  command->footer("Example:\n  graft kernel list");
  command->callback([flags] {
    const Runtime runtime(*flags);
    const auto rows = kernel_registry();
    if (flags->json) {
      Json list = Json::array();
      for (const KernelInfo& k : rows) {
        const PerElement cost = per_element(k);
        list.push_back({{"name", k.name},
                        {"domain", k.domain},
                        {"contract", k.contract},
                        {"bytes", cost.bytes},
                        {"flops", cost.flops},
                        {"variants", kernel_variants()}});
        add_example(k, list.back());
      }
      fmt::print("{}\n", Json{{"kernels", list}}.dump());
      return;
    }
    std::set<std::string_view> domains;
    for (const KernelInfo& k : rows) {
      const PerElement cost = per_element(k);
      fmt::print("{:<28} {:<20} {:>5.3g} B {:>5.3g} op  {}\n", k.name, k.domain, cost.bytes, cost.flops, k.contract);
      domains.insert(k.domain);
    }
    fmt::print("{} kernels in {} domains; variants here: {}\n", rows.size(), domains.size(),
               fmt::join(kernel_variants(), ", "));
  });
}

void print_check_json(const KernelCheckReport& report) {
  Json list = Json::array(), errors = Json::array();
  for (const KernelCheck& c : report.results) {
    list.push_back(
        {{"kernel", c.kernel},
         {"variant", c.variant},
         {"cases", c.cases},
         {"error_over_tolerance", std::isfinite(c.error_over_tolerance) ? Json(c.error_over_tolerance) : Json()},
         {"ok", c.ok()}});
    if (!c.ok()) list.back()["fault"] = c.fault;
  }
  for (const Error& e : report.errors) errors.push_back(e.what());
  fmt::print("{}\n", Json{{"results", list}, {"errors", errors}}.dump());
}

// A line for each kernel, a column for each variant.
void print_check(const KernelCheckReport& report, const std::string& variant) {
  const std::vector<CpuLevel> levels = kernel_levels(variant);
  const auto end = report.results.end();
  int64_t agree = 0;
  if (!report.results.empty()) {
    fmt::print("{:<34}{:>6}", "largest error over tolerance", "cases");
    for (const CpuLevel level : levels) fmt::print("{:>13}", cpu_level_name(level));
    fmt::print("\n");
  }
  std::set<std::string_view> done;
  const KernelCheck* worst = nullptr;
  for (const KernelCheck& first : report.results) {
    if (!done.insert(first.kernel).second) continue;
    fmt::print("{:<34}{:>6}", first.kernel, first.cases);
    const KernelCheck* fault = nullptr;
    for (const CpuLevel level : levels) {
      const auto at = std::find_if(report.results.begin(), end, [&](const KernelCheck& c) {
        return c.kernel == first.kernel && c.variant == cpu_level_name(level);
      });
      if (at == end) {
        fmt::print("{:>13}", "-");
        continue;
      }
      fmt::print("{:>13.3f}", at->error_over_tolerance);
      agree += at->ok() ? 1 : 0;
      if (!at->ok() && fault == nullptr) fault = &*at;
      if (worst == nullptr || at->error_over_tolerance > worst->error_over_tolerance) worst = &*at;
    }
    fmt::print("  {}\n", fault == nullptr ? "ok" : fmt::format("FAILS under {}: {}", fault->variant, fault->fault));
  }
  fmt::print("{} kernels; {} of {} agree", done.size(), agree, report.results.size());
  if (worst != nullptr)
    fmt::print("; worst: {} {}, {:.3f} of its tolerance", worst->kernel, worst->variant, worst->error_over_tolerance);
  if (!report.errors.empty()) fmt::print("; {} not checked", report.errors.size());
  fmt::print("\n");
}

void add_check(CLI::App& group) {
  struct Flags {
    CommonFlags common;
    std::vector<std::string> paths;
    std::string variant = "all";
  };
  auto flags = std::make_shared<Flags>();
  auto* command =
      group.add_subcommand("check", "Compare kernels with golden files; the largest error over its tolerance");
  command->add_option("path", flags->paths, "Golden files, or folders of them")->required()->type_name("PATH");
  command->add_option("--variant", flags->variant, "One variant, or all that this CPU has")
      ->type_name("all|NAME")
      ->capture_default_str();
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft kernel check golden/map_exp.safetensors --variant all");
  command->callback([flags] {
    Runtime runtime(flags->common);
    const KernelCheckReport report = check_kernels(runtime.pool(), flags->paths, flags->variant);
    flags->common.json ? print_check_json(report) : print_check(report, flags->variant);
    for (const Error& e : report.errors) fmt::print(stderr, "error: {}\n", e.what());
    if (!report.errors.empty()) {
      fmt::print(stderr, "hint: {}\n",
                 report.errors.size() == 1 && !report.errors[0].hint().empty()
                     ? report.errors[0].hint()
                     : "give golden files of kernels; graft kernel list names the kernels");
    }
    if (!report.ok()) throw ExitCode{1};
  });
}

}  // namespace

void add_kernel(CLI::App& app) {
  auto* group =
      app.add_subcommand("kernel", "The kernel suite: list it, compare it with golden files, time it, route it");
  group->require_subcommand(1);
  add_list(*group);
  add_check(*group);
  add_kernel_bench(*group);
  add_kernel_page(*group);
  add_kernel_tune(*group);
  add_kernel_route(*group);
}

}  // namespace graft
