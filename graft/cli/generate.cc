#include <cstdio>

#include "graft/base/error.h"
#include "graft/cli/generate_flags.h"
#include "graft/cli/lines.h"

namespace graft {
namespace {

double rate(int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

Json generated_json(const Generated& g) {
  const auto new_tokens = static_cast<int64_t>(g.ids.size());
  Json out = {{"text", g.text},
              {"ids", g.ids},
              {"prompt_tokens", g.prompt_tokens},
              {"completion_tokens", new_tokens},
              {"finish_reason", g.finish_reason}};
  if (!g.logprobs.empty()) {
    Json list = Json::array();
    for (const TokenLogprob& t : g.logprobs) {
      Json top = Json::array();
      for (const auto& [id, logprob] : t.top) top.push_back({id, logprob});
      list.push_back({{"id", t.id}, {"logprob", t.logprob}, {"top", std::move(top)}});
    }
    out["logprobs"] = std::move(list);
  }
  out["prefill_tokens_per_second"] = rate(g.prompt_tokens, g.prefill_seconds);
  out["decode_tokens_per_second"] = rate(new_tokens - 1, g.decode_seconds);
  return out;
}

std::vector<int32_t> prompt_of(const Session& session, const Json& line, const std::string& system) {
  const int kinds = static_cast<int>(line.contains("prompt")) + static_cast<int>(line.contains("messages")) +
                    static_cast<int>(line.contains("ids"));
  GRAFT_CHECK(kinds == 1, "a line holds one of prompt, messages and ids; this one has {}", kinds);
  if (line.contains("ids")) {
    GRAFT_CHECK(line["ids"].is_array() && std::all_of(line["ids"].begin(), line["ids"].end(),
                                                      [](const Json& id) { return id.is_number_integer(); }),
                "'ids' is {}, expected a list of token ids", json_kind(line["ids"]));
    std::vector<int32_t> ids;
    for (const Json& id : line["ids"]) {
      const auto value = id.get<int64_t>();
      GRAFT_CHECK(value >= 0 && value < session.config().vocab_size, "'ids' holds {}, expected 0 to {}", value,
                  session.config().vocab_size - 1);
      ids.push_back(static_cast<int32_t>(value));
    }
    return ids;
  }
  if (line.contains("messages")) {
    return session.encode_messages(line["messages"], line.contains("tools") ? line["tools"] : Json());
  }
  GRAFT_CHECK(line["prompt"].is_string(), "'prompt' is {}, expected a string", json_kind(line["prompt"]));
  return session.encode_prompt(line["prompt"].get<std::string>(), system);
}

struct CommandFlags : GenerateFlags {
  std::string prompt, file;
  bool stream = false, no_cache = false;
  int logprobs = -1;
};

// A line per token: its log-probability, the token as JSON text (no control character reaches the terminal), and the likeliest.
void print_logprobs(const Tokenizer& tokenizer, const Generated& g) {
  const auto text = [&](int32_t id) {
    return Json(tokenizer.decode({id})).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  for (const TokenLogprob& t : g.logprobs) {
    fmt::print("{:9.4f}  {:>6} {}", t.logprob, t.id, text(t.id));
    const char* before = "    of ";
    for (const auto& [id, logprob] : t.top) {
      fmt::print("{}{} {:.4f}", before, text(id), logprob);
      before = ", ";
    }
    fmt::print("\n");
  }
}

void print_answer(const CommandFlags& f, const Tokenizer& tokenizer, const Generated& g, bool streamed) {
  if (f.common.json) {
    fmt::print("{}\n", generated_json(g).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else if (!streamed) {
    fmt::print("{}\n", g.text);
  } else {
    fmt::print("\n");
  }
  if (!f.common.json) print_logprobs(tokenizer, g);
  std::fflush(stdout);
  if (!f.common.quiet && !f.common.json) {
    fmt::print(stderr, "prompt {} tokens, {:.1f} tokens/s; answer {} tokens, {:.1f} tokens/s; {}\n", g.prompt_tokens,
               rate(g.prompt_tokens, g.prefill_seconds), g.ids.size(),
               rate(static_cast<int64_t>(g.ids.size()) - 1, g.decode_seconds), g.finish_reason);
  }
}

void run_generate(CommandFlags& f) {
  if ((f.command->count("--prompt") > 0) == !f.file.empty()) {
    throw UsageError("give one of --prompt TEXT and --file PROMPTS.jsonl");
  }
  Runtime runtime(f.common);
  f.options.use_cache = !f.no_cache;
  f.options.logprobs = f.logprobs;
  Session session = open_session(runtime, f);
  install_signal_handlers();
  const bool streamed = f.stream && !f.common.json;
  const TextCallback on_text = [&](std::string_view piece) {
    if (streamed) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    }
    return !stop_requested.load();
  };
  const auto answer = [&](const std::vector<int32_t>& prompt, uint64_t line) {
    const Generated g = generate(session.engine(), &session.tokenizer(), prompt, f.options, line, on_text);
    print_answer(f, session.tokenizer(), g, streamed);
    if (stop_requested.load()) throw Interrupted("interrupted");
  };
  if (f.file.empty()) {
    answer(session.encode_prompt(f.prompt, f.system), 0);
    return;
  }
  uint64_t index = 0;
  for (const ParsedLine& line : read_lines(f.file)) {
    try {
      if (!line.error.empty()) throw Error(line.error);
      answer(prompt_of(session, line.value, f.system), index);
    } catch (const Error& e) {
      fmt::print("{}\n", Json{{"error", e.what()}}.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    ++index;
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  auto* command = app.add_subcommand("generate", "Answer a prompt, or every line of a file");
  auto flags = std::make_shared<CommandFlags>();
  add_generate_flags(*command, *flags);
  command->add_option("--prompt", flags->prompt, "The prompt")->type_name("TEXT");
  command->add_option("--file", flags->file, "Lines with prompt, messages or ids; - is standard input")
      ->type_name("PROMPTS.jsonl");
  command->add_flag("--stream", flags->stream, "Show the text as it comes");
  command->add_flag("--no-cache", flags->no_cache, "Compute every token from the start; the answer is the same");
  command->add_option("--logprobs", flags->logprobs, "Log-probabilities of each token and its N likeliest alternatives")
      ->check(CLI::Range(0, 1000))
      ->type_name("N");
  command->footer("Example:\n  graft generate Qwen2.5-0.5B-Instruct --prompt 'Why is the sky blue?' --stream");
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace graft
