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
// The flags that shape a token's distribution; `logit_bias` holds ID=X until apply_logit_bias, which throws UsageError
// where it does not read so or a value is none (NaN).
void add_sampling_flags(CLI::App& command, SamplingOptions& sampling, std::vector<std::string>& logit_bias);
void apply_logit_bias(const std::vector<std::string>& logit_bias, SamplingOptions& sampling);
void add_generate_flags(CLI::App& command, GenerateFlags& flags);

// Opens the session and resolves the options: flags, then generation_config.json, then greedy.
Session open_session(Runtime& runtime, GenerateFlags& flags);

}  // namespace graft
