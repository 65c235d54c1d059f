#include "graft/cli/common.h"
#include "graft/train/data_check.h"

namespace graft {

void add_data(CLI::App& app) {
  auto* group = app.add_subcommand("data", "Look at training data");
  group->require_subcommand(1);
  group->footer("Example:\n  graft data check train.jsonl --model Qwen2.5-0.5B-Instruct --show 3");
  auto* command =
      group->add_subcommand("check", "Say what a data file holds, what is wrong with it, and what would be trained");
  struct Flags {
    CommonFlags common;
    std::string data, model;
    EncodeSettings settings;
    int64_t show = 2;
    int exit_code = 0;
  };
  auto flags = std::make_shared<Flags>();
  flags->settings.too_long = "report";
  command->add_option("data", flags->data, ".jsonl, .json, .txt, folder or pre-tokenised .safetensors")
      ->required()
      ->type_name("DATA");
  command->add_option("--model", flags->model, "Model folder: its tokenizer and template")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option("--max-length", flags->settings.max_length, "Longest row in tokens (default: the model's maximum)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->type_name("N");
  command
      ->add_option("--too-long", flags->settings.too_long,
                   "As for train: error makes rows beyond it faults (default: they are warned about)")
      ->check(CLI::IsMember({"error", "truncate", "drop", "split"}));
  command->add_option("--loss-on", flags->settings.loss_on, "Tokens to train")
      ->check(CLI::IsMember({"auto", "completion", "assistant", "last", "all"}))
      ->capture_default_str();
  command->add_option("--template-arg", flags->settings.template_args, "Variable for the chat template (repeatable)")
      ->type_name("K=V");
  command->add_option("--show", flags->show, "Rows to show with the trained part marked")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str()
      ->type_name("N");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft data check train.jsonl --model Qwen2.5-0.5B-Instruct --show 3");
  command->callback([flags] {
    Runtime runtime(flags->common);
    const DataCheck check = check_data(flags->data, flags->model, flags->settings, flags->show, runtime.pool());
    if (flags->common.json) {
      fmt::print("{}\n", check.to_json().dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      fmt::print("{}", check.text(stdout_is_terminal()));
    }
    if (!check.passes()) throw ExitCode{1};
  });
}

}  // namespace graft
