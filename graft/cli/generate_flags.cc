#include "graft/cli/generate_flags.h"

#include <cmath>

#include "graft/base/error.h"

namespace graft {
namespace {

// ID=X; X may be -inf.
std::pair<int32_t, double> parse_bias(const std::string& text) {
  char* end = nullptr;
  const int64_t id = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '=' || id < 0 || id > INT32_MAX) {
    throw UsageError(fmt::format("--logit-bias is '{}', expected ID=X", text));
  }
  const char* number = end + 1;
  const double bias = std::strtod(number, &end);
  if (end == number || *end != '\0' || std::isnan(bias)) {
    throw UsageError(fmt::format("--logit-bias is '{}', expected ID=X", text));
  }
  return {static_cast<int32_t>(id), bias};
}

}  // namespace

void add_sampling_flags(CLI::App& command, SamplingOptions& s, std::vector<std::string>& logit_bias) {
  command.add_option("--temperature", s.temperature, "0 is greedy (default: the model's, else greedy)")
      ->check(CLI::Range(0.0, 1e6))
      ->type_name("T");
  command.add_option("--top-k", s.top_k, "Keep the k likeliest tokens; 0 is off")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->type_name("K");
  command.add_option("--top-p", s.top_p, "Keep the likeliest tokens with this mass; 1 is off")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("P");
  command.add_option("--min-p", s.min_p, "Drop tokens below this share of the likeliest")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("P");
  command
      .add_option("--repetition-penalty", s.repetition_penalty,
                  "Divides positive logits of tokens seen, multiplies negative ones")
      ->check(CLI::Range(1e-6, 1e6))
      ->type_name("X");
  command.add_option("--frequency-penalty", s.frequency_penalty, "Subtracted per occurrence")
      ->check(CLI::Range(-1e6, 1e6))
      ->type_name("X");
  command.add_option("--presence-penalty", s.presence_penalty, "Subtracted once for tokens seen")
      ->check(CLI::Range(-1e6, 1e6))
      ->type_name("X");
  command.add_option("--repeat-last-n", s.repeat_last_n, "Tokens the penalties look back; 0 is all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->type_name("N");
  command.add_option("--logit-bias", logit_bias, "Added to a token's logit; -inf bans it (repeatable)")
      ->type_name("ID=X");
}

void apply_logit_bias(const std::vector<std::string>& logit_bias, SamplingOptions& sampling) {
  for (const std::string& text : logit_bias) {
    const auto [id, bias] = parse_bias(text);
    sampling.logit_bias.insert_or_assign(id, bias);
  }
  try {
    sampling.validate();  // what the ranges of the flags let through: NaN
  } catch (const Error& e) {
    throw UsageError(e.what());
  }
}

void add_generate_flags(CLI::App& command, GenerateFlags& f) {
  f.command = &command;
  command.add_option("model", f.session.model, "Model folder")->required()->type_name("MODEL");
  command.add_option("--adapter", f.session.adapter, "Adapter folder or file")->type_name("ADAPTER");
  command.add_flag("--raw", f.raw, "No chat template");
  command.add_flag("--chat", f.chat, "The chat template, whatever the adapter was trained with");
  command.add_option("--system", f.system, "System message")->type_name("TEXT");
  command
      .add_option("--template-arg", f.session.template_args,
                  "Variable for the chat template, e.g. enable_thinking=false (repeatable)")
      ->type_name("K=V");
  command.add_option("--max-tokens", f.options.max_tokens, "Longest answer in tokens")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--min-tokens", f.options.min_tokens, "End tokens are removed until then")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->type_name("N");
  add_sampling_flags(command, f.options.sampling, f.logit_bias);
  command.add_option("--stop", f.options.stop, "Text that ends the answer (repeatable)")->type_name("STR");
  command.add_flag("--ignore-eos", f.options.ignore_eos, "An end token is a token like any other");
  command.add_option("--rng", f.rng, "Random numbers")
      ->check(CLI::IsMember({"philox", "lcg64"}))
      ->capture_default_str();
  command.add_flag("--greedy", f.greedy, "Always the likeliest token");
  add_common_flags(command, f.common);
}

Session open_session(Runtime& runtime, GenerateFlags& f) {
  if (f.raw && f.chat) throw UsageError("--raw and --chat exclude each other");
  for (const std::string& stop : f.options.stop) {
    if (stop.empty()) throw UsageError("--stop is empty, expected text");
  }
  apply_logit_bias(f.logit_bias, f.options.sampling);
  if (f.raw || f.chat) f.session.raw = f.raw;
  f.session.compute = resolve_compute(f.common.dtype);
  Session session(runtime.context(), f.session);
  const auto given = [&](std::string_view name) { return f.command->count("--" + std::string(name)) > 0; };
  apply_generation_config(session.generation(), f.options, given);
  SamplingOptions& s = f.options.sampling;
  // A filter asks for sampling: it would change nothing of a greedy answer.
  if (!given("temperature") && s.temperature == 0 && (given("top-k") || given("top-p") || given("min-p"))) {
    s.temperature = 1;
  }
  if (f.greedy) s.temperature = 0, s.top_k = 0, s.top_p = 1, s.min_p = 0;
  s.rng = f.rng == "lcg64" ? SamplerRng::kLcg64 : SamplerRng::kPhilox;
  f.options.seed = f.common.seed;
  f.options.end_tokens = session.end_tokens();
  return session;
}

}  // namespace graft
