#include <algorithm>
#include <cmath>
#include <cstdio>

#include "graft/base/json.h"
#include "graft/cli/common.h"
#include "graft/train/evaluate.h"
#include "graft/train/metrics.h"

namespace graft {

void add_eval(CLI::App& app) {
  auto* command = app.add_subcommand("eval", "Loss, perplexity and exact match of a model on data");
  struct Flags {
    CommonFlags common;
    EvalConfig config;
    std::vector<std::string> metrics = {"loss", "perplexity"};
    bool raw = false, chat = false;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->config.model, "Model folder")->required()->type_name("MODEL");
  command->add_option("--adapter", flags->config.adapter, "Adapter folder or file")->type_name("ADAPTER");
  command->add_option("--data", flags->config.data, "Rows as `train` reads them")->required()->type_name("DATA");
  command->add_option("--metrics", flags->metrics, "loss,perplexity,exact_match")
      ->delimiter(',')
      ->check(CLI::IsMember({"loss", "perplexity", "exact_match"}));
  command->add_option("--max-tokens", flags->config.max_tokens, "Longest answer for exact match")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--limit", flags->config.limit, "Rows of exact match (default: all)")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  command->add_option("--batch-size", flags->config.batch_size, "Rows at a time; does not change the result")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--max-length", flags->config.max_length, "Longest row (default: the model's maximum)")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  command->add_option("--loss-on", flags->config.loss_on, "Tokens that count")
      ->check(CLI::IsMember({"auto", "completion", "assistant", "last", "all"}))
      ->capture_default_str();
  command->add_option("--template-arg", flags->config.template_args, "Variable for the chat template (repeatable)")
      ->type_name("K=V");
  command->add_flag("--raw", flags->raw, "Accepted for symmetry with generate; rows are built as train builds them");
  command->add_flag("--chat", flags->chat, "Accepted for symmetry with generate; rows are built as train builds them");
  add_common_flags(*command, flags->common);
  command->footer(
      "Example:\n  graft eval Qwen2.5-0.5B --adapter my-adapter --data test.jsonl --metrics loss,exact_match");
  command->callback([flags] {
    Runtime runtime(flags->common);
    flags->config.compute = resolve_compute(flags->common.dtype);
    const auto wants = [&](const char* name) {
      return std::find(flags->metrics.begin(), flags->metrics.end(), name) != flags->metrics.end();
    };
    flags->config.exact_match = wants("exact_match");
    if (!flags->common.quiet && stderr_is_terminal()) {
      flags->config.progress = [](int64_t done, int64_t total) {
        fmt::print(stderr, "\r\x1b[2K{}/{}{}", done, total, done == total ? "\r\x1b[2K" : "");
      };
    }
    const EvalResult r = evaluate(runtime.context(), flags->config);
    const auto number = [](double value) { return std::isfinite(value) ? Json(value) : Json(); };
    if (flags->common.json) {
      Json out = {
          {"loss", number(r.loss)}, {"perplexity", number(r.perplexity)}, {"tokens", r.tokens}, {"rows", r.rows}};
      if (r.exact_match) out["exact_match"] = *r.exact_match;
      fmt::print("{}\n", out.dump());
      return;
    }
    fmt::print("loss {:.4f}  perplexity {:.3f}  ({} tokens of {} rows)\n", r.loss, r.perplexity, count_text(r.tokens),
               count_text(r.rows));
    if (r.exact_match) fmt::print("exact match {:.1f} %\n", 100 * *r.exact_match);
  });
}

}  // namespace graft
