#include "graft/models/merge.h"

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/cli/common.h"
#include "graft/train/config.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

// ADAPTER[:WEIGHT]; a colon that no number follows belongs to the path.
std::pair<std::string, double> parse_adapter(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return {text, 1.0};
  char* end = nullptr;
  const double weight = std::strtod(text.c_str() + colon + 1, &end);
  if (*end != '\0') return {text, 1.0};
  if (!(weight > -1e6 && weight < 1e6)) {
    throw UsageError(fmt::format("{}: the weight is {}, expected a number", text, weight));
  }
  return {text.substr(0, colon), weight};
}

}  // namespace

void add_merge(CLI::App& app) {
  auto* command = app.add_subcommand("merge", "Fold LoRA adapters into their base model");
  struct Flags {
    CommonFlags common;
    MergeConfig config;
    std::vector<std::string> adapters;
    std::string shard_size = "5G";
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->config.model, "Model folder")->required()->type_name("MODEL");
  command->add_option("adapters", flags->adapters, "Adapter folders, each perhaps with a weight")
      ->required()
      ->type_name("ADAPTER[:WEIGHT] …");
  command->add_option("--out", flags->config.out, "Folder to create")->required()->type_name("DIR");
  command->add_option("--save-dtype", flags->config.dtype, "Alias of --dtype")
      ->check(CLI::IsMember({"keep", "f32", "bf16", "f16"}))
      ->group("");
  command->add_option("--shard-size", flags->shard_size, "Largest file")->capture_default_str()->type_name("SIZE");
  command->add_flag("--overwrite", flags->config.overwrite, "Write into a folder that is not empty");
  command->add_option("--dtype", flags->config.dtype, "Type of the weights written")
      ->check(CLI::IsMember({"keep", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command->add_option("--threads", flags->common.threads, "Threads (default: the cores this process may use)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  command->add_option("--seed", flags->common.seed, "Nothing in a merge is random; as for every command")
      ->group("")
      ->type_name("N");
  command->add_flag("--quiet", flags->common.quiet, "Print errors only");
  command->add_flag("--verbose", flags->common.verbose, "Print what is decided along the way");
  command->add_flag("--json", flags->common.json, "Print JSON on standard output and nothing else");
  command->footer(
      "Example:\n  graft merge Qwen2.5-0.5B my-adapter --out merged\n  graft merge Qwen2.5-0.5B sql:0.7 style:0.3 "
      "--out both --dtype bf16");
  command->callback([flags] {
    Runtime runtime(flags->common);
    for (const std::string& text : flags->adapters) flags->config.adapters.push_back(parse_adapter(text));
    try {
      flags->config.shard_bytes = static_cast<uint64_t>(parse_bytes(flags->shard_size));
      GRAFT_CHECK(flags->config.shard_bytes > 0, "is 0, expected more");
    } catch (const Error& e) {
      throw UsageError(fmt::format("--shard-size: {}", e.what()));
    }
    flags->config.progress = throw_if_stopped;
    install_signal_handlers();
    const MergeReport report = merge(runtime.context(), flags->config);
    if (flags->common.json) {
      fmt::print("{}\n", Json{{"merged", report.num_merged},
                              {"copied", report.num_copied},
                              {"bytes", report.bytes},
                              {"out", flags->config.out}}
                             .dump());
    } else if (!flags->common.quiet) {
      fmt::print("{}: {} weights merged, {} copied, {}\n", flags->config.out, report.num_merged, report.num_copied,
                 memory_text(static_cast<int64_t>(report.bytes)));
    }
  });
}

}  // namespace graft
