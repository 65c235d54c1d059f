#include <algorithm>
#include <set>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/bench/kernel_check.h"
#include "graft/cli/common.h"
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
    const std::vector<KernelCheck> checks = check_kernels(runtime.pool(), flags->paths, flags->variant);
    Json list = Json::array();
    int64_t failed = 0;
    for (const KernelCheck& c : checks) {
      failed += c.ok() ? 0 : 1;
      if (flags->common.json) {
        list.push_back(
            {{"kernel", c.kernel},
             {"variant", c.variant},
             {"cases", c.cases},
             {"error_over_tolerance", std::isfinite(c.error_over_tolerance) ? Json(c.error_over_tolerance) : Json()},
             {"ok", c.ok()}});
      } else {
        fmt::print("{:<28} {:<12} {:>3} cases  {:>8.3f} of tolerance  {}\n", c.kernel, c.variant, c.cases,
                   c.error_over_tolerance, c.ok() ? "ok" : "FAILS: " + c.fault);
      }
    }
    if (flags->common.json) {
      fmt::print("{}\n", Json{{"results", list}}.dump());
    } else {
      fmt::print("{} of {} agree\n", static_cast<int64_t>(checks.size()) - failed, checks.size());
    }
    if (failed > 0) throw ExitCode{1};
  });
}

}  // namespace

void add_kernel(CLI::App& app) {
  auto* group = app.add_subcommand("kernel", "The kernel suite: list it, compare it with golden files");
  group->require_subcommand(1);
  add_list(*group);
  add_check(*group);
}

}  // namespace graft
