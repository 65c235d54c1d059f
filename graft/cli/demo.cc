#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/cli/common.h"
#include "graft/cli/lines.h"
#include "graft/infer/session.h"
#include "graft/models/merge.h"
#include "graft/train/metrics.h"
#include "graft/train/trainer.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kQuestions = 100;  // held-out rows that are asked
constexpr size_t kShown = 3;         // of these, printed
constexpr int64_t kMaxTokens = 48;   // of an answer

// examples/demo: beside an installed binary, in the source tree of a build, or in this folder.
std::string find_demo() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& folder :
       {program / "../share/graft/examples/demo", program / "../../examples/demo", fs::path("examples/demo")}) {
    if (fs::exists(folder / "model" / "config.json")) return fs::weakly_canonical(folder).string();
  }
  throw Error("the demo's model and data are not there",
              "run it from the source tree, or install with cmake --install (share/graft/examples/demo)");
}

struct Question {
  std::string prompt, answer;
};

std::vector<Question> read_questions(const std::string& path) {
  std::vector<Question> questions;
  for (const ParsedLine& line : read_lines(path)) {
    GRAFT_CHECK(line.error.empty() && line.value.contains("prompt") && line.value.contains("completion"), "{}: {}",
                path, line.error);
    questions.push_back({line.value["prompt"].get<std::string>(), line.value["completion"].get<std::string>()});
    if (static_cast<int64_t>(questions.size()) == kQuestions) break;
  }
  return questions;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

struct Answers {
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
  int64_t right = 0;
};

Answers ask(Context& context, const std::string& model, const std::string& adapter,
            const std::vector<Question>& questions) {
  SessionOptions options;
  options.model = model, options.adapter = adapter;
  options.max_sequences = 8;
  options.max_length = 512;
  options.raw = true;
  Session session(context, options);
  std::vector<std::vector<int32_t>> prompts;
  for (const Question& q : questions) prompts.push_back(session.encode_prompt(q.prompt, ""));
  GenerateOptions generate_options;
  generate_options.max_tokens = kMaxTokens;
  generate_options.end_tokens = session.end_tokens();
  Answers answers;
  const std::vector<Generated> generated =
      generate_batch(session.engine(), &session.tokenizer(), prompts, generate_options);
  for (size_t i = 0; i < generated.size(); ++i) {
    answers.texts.push_back(trimmed(generated[i].text));
    answers.ids.push_back(generated[i].ids);
    answers.right += answers.texts.back() == trimmed(questions[i].answer) ? 1 : 0;
  }
  return answers;
}

void show(const std::vector<Question>& questions, const Answers& answers) {
  for (size_t i = 0; i < kShown && i < questions.size(); ++i) {
    const std::string& prompt = questions[i].prompt;
    const size_t begin = prompt.find("### Question\n");
    const std::string question =
        begin == std::string::npos ? prompt : prompt.substr(begin + 13, prompt.find('\n', begin + 13) - begin - 13);
    fmt::print("  {}\n    wanted: {}\n    answer: {}\n", question, questions[i].answer,
               printable(answers.texts[i].substr(0, answers.texts[i].find('\n')), 100));
  }
  fmt::print("  exact: {} of {}\n", answers.right, questions.size());
  std::fflush(stdout);
}

struct DemoFlags {
  CommonFlags common;
  std::string out = "graft-demo";
  int64_t steps = 600;
};

void run_demo(const DemoFlags& flags) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string demo = find_demo(), model = demo + "/model";
  Runtime runtime(flags.common);
  const std::vector<Question> questions = read_questions(demo + "/test.jsonl");
  const bool text = !flags.common.json;
  if (text) fmt::print("1. The base model, asked {} questions it was not trained for\n", questions.size());
  const Answers before = ask(runtime.context(), model, "", questions);
  if (text) show(questions, before);

  if (text) {
    fmt::print("\n2. Fine-tuning: graft train --model {} --data {}/train.jsonl --targets all-linear --lr 4e-3 …\n",
               model, demo);
  }
  std::fflush(stdout);
  TrainConfig config;
  config.model = model;
  config.data = demo + "/train.jsonl";
  config.out = flags.out + "/adapter";
  config.targets = "all-linear";
  config.lr = 4e-3;
  config.schedule = "cosine";
  config.warmup = parse_steps_or_share("5%");
  config.batch_size = 8;
  config.steps = flags.steps;
  config.seed = static_cast<int64_t>(flags.common.seed);
  config.dtype = "f32";
  config.overwrite = true;
  Trainer trainer(runtime.context(), config);
  TrainEvents events;
  events.stop = [] { return stop_requested.load(); };
  if (!flags.common.quiet) {
    events.step = [](const Progress& p) {
      if (p.metrics.step % 50 == 0 || p.metrics.step == 1) fmt::print(stderr, "  {}\n", progress_line(p));
    };
  }
  install_signal_handlers();
  const TrainResult trained = trainer.run(events);
  if (trained.interrupted) throw Interrupted(trained.message);
  leave_on_signals();  // asking makes nothing
  if (text) {
    fmt::print("  {} updates in {}, {} tokens/s, peak memory {} (forecast {})\n", trained.steps,
               duration_text(trained.seconds), count_text(static_cast<int64_t>(trained.tokens_per_second)),
               memory_text(trained.peak_memory_bytes), memory_text(trained.forecast_memory_bytes));
  }

  if (text) fmt::print("\n3. The same questions, with the adapter\n");
  const Answers after = ask(runtime.context(), model, config.out, questions);
  if (text) show(questions, after);

  MergeConfig merge_config;
  merge_config.model = model;
  merge_config.adapters = {{config.out, 1.0}};
  merge_config.out = flags.out + "/merged";
  merge_config.dtype = "f32";
  merge_config.overwrite = true;
  merge_config.progress = throw_if_stopped;
  install_signal_handlers();
  merge(runtime.context(), merge_config);
  leave_on_signals();
  const Answers merged = ask(runtime.context(), merge_config.out, "", questions);
  int64_t equal = 0;
  for (size_t i = 0; i < questions.size(); ++i) equal += merged.ids[i] == after.ids[i] ? 1 : 0;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (text) {
    fmt::print("\n4. Merged into {}: {} of {} answers are token for token those of base + adapter\n\n",
               merge_config.out, equal, questions.size());
    fmt::print(
        "Done in {}. Exact answers: {} before, {} after. Look at {}/report.html, or talk to it:\n  graft chat {} "
        "--adapter {} --raw\n",
        duration_text(seconds), before.right, after.right, config.out, model, config.out);
  } else {
    fmt::print("{}\n", Json{{"exact_before", before.right},
                            {"exact_after", after.right},
                            {"questions", questions.size()},
                            {"merged_equal", equal},
                            {"loss", trained.loss},
                            {"seconds", seconds},
                            {"adapter", config.out},
                            {"merged", merge_config.out}}
                           .dump());
  }
  if (equal != static_cast<int64_t>(questions.size())) {
    throw Error(fmt::format("{} answers differ after merging", static_cast<int64_t>(questions.size()) - equal));
  }
}

}  // namespace

void add_demo(CLI::App& app) {
  auto* command =
      app.add_subcommand("demo", "The main job on what the project ships: ask, fine-tune, ask again, merge, compare");
  auto flags = std::make_shared<DemoFlags>();
  command->add_option("--out", flags->out, "Folder for the adapter and the merged model")
      ->capture_default_str()
      ->type_name("DIR");
  command->add_option("--steps", flags->steps, "Updates of the fine-tune")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str()
      ->type_name("N");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft demo --out /tmp/graft-demo");
  command->callback([flags] { run_demo(*flags); });
}

}  // namespace graft
