#pragma once

#include <string>
#include <vector>

#include "graft/cli/common.h"
#include "graft/infer/generate.h"
#include "graft/infer/session.h"

namespace graft {

// The flags that `generate` and `chat` share: model, adapter, template, sampling.
struct GenerateFlags {
  CommonFlags common;
  SessionOptions session;
  GenerateOptions options;
  std::string system, rng = "philox";
  std::vector<std::string> logit_bias;
  bool greedy = false, raw = false, chat = false;
  CLI::App* command = nullptr;
};
void add_generate_flags(CLI::App& command, GenerateFlags& flags);

// Opens the session and resolves the options: flags, then generation_config.json, then greedy.
Session open_session(Runtime& runtime, GenerateFlags& flags);

}  // namespace graft
