#include "graft/models/init.h"

#include "graft/base/json.h"
#include "graft/cli/common.h"
#include "graft/train/metrics.h"

namespace graft {

void add_init(CLI::App& app) {
  auto* command = app.add_subcommand("init", "Make a model folder with random weights, to train with --method full");
  struct Flags {
    CommonFlags common;
    InitConfig config;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("--config", flags->config.config, "config.json of any family, or a folder that holds one")
      ->required()
      ->type_name("FILE");
  command->add_option("--out", flags->config.out, "Folder to create")->required()->type_name("DIR");
  command->add_option("--tokenizer", flags->config.tokenizer, "Folder whose tokenizer files are copied")
      ->type_name("DIR");
  command
      ->add_option("--init", flags->config.init,
                   "range: N(0, initializer_range); fan_in: N(0, 2/fan_in) (default: the family's)")
      ->check(CLI::IsMember({"fan_in", "range"}));
  command->add_flag("--overwrite", flags->config.overwrite, "Write into a folder that is not empty");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft init --config config.json --tokenizer Qwen2.5-0.5B --seed 1 --out fresh");
  command->callback([flags] {
    Runtime runtime(flags->common);
    flags->config.seed = flags->common.seed;
    flags->config.progress = throw_if_stopped;
    install_signal_handlers();
    const int64_t parameters = init_model(runtime.context(), flags->config);
    if (flags->common.json) {
      fmt::print("{}\n", Json{{"parameters", parameters}, {"out", flags->config.out}}.dump());
    } else if (!flags->common.quiet) {
      fmt::print("{}: {} parameters\n", flags->config.out, count_text(parameters));
    }
  });
}

}  // namespace graft
