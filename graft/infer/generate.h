#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graft/formats/model_config.h"
#include "graft/infer/engine.h"
#include "graft/infer/sampler.h"
#include "graft/text/tokenizer.h"

namespace graft {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 128;
  int64_t min_tokens = 0;           // end tokens are removed until then
  bool ignore_eos = false;          // an end token is a token like any other
  std::vector<int64_t> end_tokens;  // what ends an answer
  std::vector<std::string> stop;    // strings that end it; not part of the text
  int logprobs = -1;  // alternatives to report per token from the model's own logits; below 0: none at all
  bool use_cache = true;
  uint64_t seed = 0;
};

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;
};

struct Generated {
  std::vector<int32_t> ids;  // new tokens, with the end token where it ended on one
  std::string text;          // without it
  int64_t prompt_tokens = 0;
  std::string
      finish_reason;  // stop (end token or stop string), length (max_tokens), context (the model's maximum), cancelled
  std::vector<TokenLogprob> logprobs;
  double prefill_seconds = 0, decode_seconds = 0;
};

// Called with the text that is safe to show (never half a character, never the beginning of a stop string); false ends the answer.
using TextCallback = std::function<bool(std::string_view)>;

// Answers one prompt. `line` names the draws beside the seed. With a cache given, what it holds must be a prefix of `prompt` (a dialogue goes on).
Generated generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                   const GenerateOptions& options, uint64_t line = 0, const TextCallback& on_text = {},
                   KvCache* cache = nullptr);

// Answers many prompts, up to the engine's max_sequences at a time; the answers are those of `generate`, bit for bit.
std::vector<Generated> generate_batch(Engine& engine, const Tokenizer* tokenizer,
                                      const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options);

// Settings not given come from generation_config.json, else greedy.
void apply_generation_config(const GenerationConfig& generation, GenerateOptions& options,
                             const std::function<bool(std::string_view)>& given);

}  // namespace graft
