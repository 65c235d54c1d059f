#include "graft/train/dump.h"

#include "graft/base/strings.h"
#include "graft/cli/generate_flags.h"

namespace graft {

void add_dump(CLI::App& app) {
  auto* command =
      app.add_subcommand("dump", "Write what a model computes (logits, hidden states, gradients) to a file");
  struct Flags {
    CommonFlags common;
    DumpConfig config;
    std::vector<std::string> want = {"logits"}, logit_bias;
  };
  auto flags = std::make_shared<Flags>();
  flags->common.dtype = "f32";  // dump compares engines: the exact type unless asked otherwise
  command->add_option("model", flags->config.model, "Model folder")->required()->type_name("MODEL");
  command->add_option("--adapter", flags->config.adapter, "Adapter folder or file")->type_name("ADAPTER");
  command->add_option("--input", flags->config.input, "safetensors with input_ids, perhaps attention_mask and labels")
      ->required()
      ->type_name("FILE");
  command->add_option("--output", flags->config.output, "safetensors to write")->required()->type_name("FILE");
  command
      ->add_option(
          "--want", flags->want,
          "What to write: logits,hidden,nll,loss,grads,router, or sampling (the input holds logits and history)")
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>(dump_wants().begin(), dump_wants().end())))
      ->type_name("LIST");
  command->add_option("--method", flags->config.method, "Whose gradients: lora (default with an adapter) or full")
      ->check(CLI::IsMember({"lora", "full"}));
  command
      ->add_option("--aux-coef", flags->config.aux_coef, "Coefficient of the load balancing loss (default: as train)")
      ->check(CLI::NonNegativeNumber)
      ->type_name("X");
  command->add_option("--aux-mode", flags->config.aux_mode, "Load balancing per layer, or over all layers together")
      ->check(CLI::IsMember({"auto", "layers", "joint"}));
  // What is not given is neutral: generation_config.json plays no part, and a distribution is wanted, not the greedy choice.
  flags->config.sampling.temperature = 1;
  add_sampling_flags(*command, flags->config.sampling, flags->logit_bias);
  add_common_flags(*command, flags->common, false);
  command->footer(
      "Example:\n  graft dump Qwen2.5-0.5B --input ids.safetensors --output out.safetensors --want logits,nll");
  command->callback([flags] {
    Runtime runtime(flags->common);
    flags->config.want = {flags->want.begin(), flags->want.end()};
    apply_logit_bias(flags->logit_bias, flags->config.sampling);
    flags->config.compute = resolve_compute(flags->common.dtype);
    flags->config.before_write = install_signal_handlers;
    dump(runtime.context(), flags->config);
  });
}

}  // namespace graft
