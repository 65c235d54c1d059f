#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/base/process.h"
#include "graft/cli/common.h"
#include "graft/train/trainer.h"

namespace graft {
namespace {

// What --help shows after the flag. A count of 0 means "not given", and some helps say their default in words.
std::string default_text(const TrainField& field) {
  static const TrainConfig defaults;
  const bool is_switch = std::holds_alternative<bool TrainConfig::*>(field.member);
  if (is_switch || field.help.find("(default") != std::string_view::npos) return "";
  const std::string text = train_field_text(defaults, field);
  return text == "0" && (field.value == "N" || field.value == "SIZE") && field.name != "seed" ? "" : text;
}

// Every field of TrainConfig is a flag: name, help and range stand in train_fields() and nowhere else.
void add_field(CLI::App& command, TrainConfig& config, const TrainField& field) {
  const std::string flag = flag_name(field);
  const auto set = [&config, &field](const std::string& text) {
    try {
      set_train_field(config, field, text);
    } catch (const Error& e) {
      throw CLI::ValidationError(e.what());
    }
  };
  std::string help(field.help);
  CLI::Option* option = nullptr;
  if (std::holds_alternative<bool TrainConfig::*>(field.member)) {
    option = command.add_flag_function(
        flag, [set](int64_t) { set("true"); }, help);
  } else if (std::holds_alternative<std::optional<std::string> TrainConfig::*>(field.member)) {
    option = command
                 .add_option_function<std::vector<std::string>>(
                     flag, [set](const std::vector<std::string>& v) { set(v.empty() ? "" : v.back()); }, help)
                 ->expected(0, 1);
  } else {
    const bool list = std::holds_alternative<std::vector<std::string> TrainConfig::*>(field.member);
    option = command.add_option_function<std::vector<std::string>>(
        flag,
        [set](const std::vector<std::string>& values) {
          for (const std::string& value : values) set(value);
        },
        help);
    list ? option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll) : option->expected(1);
  }
  std::string type(field.choices.empty() ? field.value : field.choices);
  if (!type.empty()) option->type_name(type);
  const std::string preset = default_text(field);
  if (!preset.empty()) option->default_str(preset);
  option->group(std::string(field.group));
}

// A dry run's answer is its result and goes to standard output; a run's own lines are progress.
void print_plan(const TrainPlan& plan, const TrainConfig& config, bool dry) {
  std::FILE* const to = dry ? stdout : stderr;
  fmt::print(to, "{} rows, {} tokens, {} of them trained; longest row {}; {} updates{}\n", count_text(plan.rows),
             count_text(plan.tokens), count_text(plan.trained_tokens), count_text(plan.longest), count_text(plan.steps),
             plan.valid_rows > 0
                 ? fmt::format("; {} row{} to validate", count_text(plan.valid_rows), plan.valid_rows == 1 ? "" : "s")
                 : "");
  fmt::print(to, "trainable params: {} || all params: {} || trainable%: {:.4f}\n",
             count_text(plan.trainable_parameters), count_text(plan.model_parameters),
             100.0 * static_cast<double>(plan.trainable_parameters) / static_cast<double>(plan.model_parameters));
  fmt::print(
      to, "compute {}; peak memory {} (forecast){}\n", plan.dtype, memory_text(plan.forecast_memory_bytes),
      plan.recompute_every > 0 ? fmt::format("; activations recomputed every {} layers", plan.recompute_every) : "");
  if (!dry) return;
  for (const std::string& preview : plan.previews) {
    fmt::print("\n{}{}", preview, preview.ends_with('\n') ? "" : "\n");
  }
  if (plan.seconds > 0) fmt::print("\nestimated time {}\n", duration_text(plan.seconds));
  fmt::print("nothing was written; without --dry-run the result goes to {}\n", config.out);
}

Json plan_json(const TrainPlan& plan) {
  return {{"rows", plan.rows},       {"tokens", plan.tokens}, {"trained_tokens", plan.trained_tokens},
          {"longest", plan.longest}, {"steps", plan.steps},   {"forecast_memory_bytes", plan.forecast_memory_bytes},
          {"seconds", plan.seconds}};
}

Json result_json(const TrainResult& r) {
  return {{"steps", r.steps},
          {"loss", std::isfinite(r.loss) ? Json(r.loss) : Json()},
          {"eval_loss", r.eval_loss && std::isfinite(*r.eval_loss) ? Json(*r.eval_loss) : Json()},
          {"tokens", r.tokens},
          {"tokens_per_second", r.tokens_per_second},
          {"peak_memory_bytes", r.peak_memory_bytes},
          {"forecast_memory_bytes", r.forecast_memory_bytes},
          {"seconds", r.seconds},
          {"adapter", r.adapter}};
}

void run_train(TrainConfig& config) {
  if (!config.config.empty()) {
    read_train_toml(config, config.config);
  } else {  // the command line alone shows what is missing; a checkpoint brings its run's settings
    std::string missing;
    for (const auto& [flag, value] :
         {std::pair{"--model", &config.model}, {"--data", &config.data}, {"--out", &config.out}}) {
      const bool brought = config.resume && (flag != std::string_view("--out") || !config.resume->empty());
      if (value->empty() && !brought) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", flag);
    }
    if (!missing.empty()) throw UsageError(missing + " missing: give it, or a --config that holds it");
    try {  // no file has a part in what is wrong here
      if (!config.resume) config.validate(/*check_required=*/false);
    } catch (const Error& e) {
      throw UsageError(e.what());
    }
  }
  CommonFlags common;
  common.threads = static_cast<int>(config.threads);
  common.quiet = config.quiet, common.verbose = config.verbose;
  Runtime runtime(common);
  Trainer trainer(runtime.context(), config);
  const bool quiet = config.quiet;
  if (config.dry_run) {
    TrainPlan plan = trainer.plan();
    plan.seconds = trainer.estimate_seconds();
    if (config.json) fmt::print("{}\n", plan_json(plan).dump());
    if (!quiet && !config.json) print_plan(plan, trainer.config(), true);
    return;
  }
  const bool terminal = stderr_is_terminal();
  TrainEvents events;
  events.stop = [] { return stop_requested.load(); };
  if (!quiet) {
    events.planned = [&](const TrainPlan& plan) { print_plan(plan, trainer.config(), false); };
    events.step = [terminal](const Progress& progress) {
      // A terminal shows one line that moves; a file gets one line in ten.
      if (terminal) {
        fmt::print(stderr, "\r\x1b[2K{}", progress_line(progress));
        if (progress.metrics.step == progress.num_steps) fmt::print(stderr, "\n");
        std::fflush(stderr);
      } else if (progress.metrics.step % 10 == 0 || progress.metrics.step == 1 ||
                 progress.metrics.step == progress.num_steps) {
        fmt::print(stderr, "{}\n", progress_line(progress));
      }
    };
    events.evaluated = [terminal](const EvalMetrics& m) {
      fmt::print(stderr, "{}step {:>6}  eval loss {:.4f}  ({} tokens, {})\n", terminal ? "\r\x1b[2K" : "", m.step,
                 m.eval_loss, count_text(m.eval_tokens), duration_text(m.eval_runtime));
    };
    events.note = [](const std::string& text) { fmt::print(stderr, "{}\n", text); };
  }
  install_signal_handlers();
  const TrainResult result = trainer.run(events);
  if (config.json) fmt::print("{}\n", result_json(result).dump());
  if (result.interrupted) throw Interrupted(result.message);
  if (!quiet) {
    if (!result.message.empty()) fmt::print(stderr, "{}\n", result.message);
    fmt::print(stderr, "{} updates in {}, {}peak memory {} (forecast {})\n{} written: {} and report.html\n",
               count_text(result.steps), duration_text(result.seconds),
               result.tokens_per_second > 0  // 0: the run was finished already
                   ? count_text(static_cast<int64_t>(result.tokens_per_second)) + " tokens/s, "
                   : "",
               memory_text(result.peak_memory_bytes), memory_text(result.forecast_memory_bytes), result.adapter,
               trainer.config().method == "full" ? "model" : "adapter");
  }
}

}  // namespace

void add_train(CLI::App& app) {
  auto* command = app.add_subcommand("train", "Fine-tune a model with LoRA, or train all its weights");
  auto config = std::make_shared<TrainConfig>();
  for (const TrainField& field : train_fields()) add_field(*command, *config, field);
  command->footer(
      "Example:\n  graft train --model Qwen2.5-0.5B-Instruct --data train.jsonl --valid 5% --out my-adapter\n"
      "  graft train --model Qwen2.5-0.5B-Instruct --data train.jsonl --out my-adapter --dry-run");
  command->callback([config] { run_train(*config); });
}

}  // namespace graft
