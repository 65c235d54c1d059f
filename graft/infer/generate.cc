#include "graft/infer/generate.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "graft/base/error.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Text so far, what of it may be shown, and whether a stop string ended it.
class TextTracker {
 public:
  TextTracker(const Tokenizer* tokenizer, const std::vector<std::string>& stop) : stop_(stop) {
    std::erase(stop_, std::string());  // an empty one would end every answer at once
    if (tokenizer != nullptr) decoder_.emplace(*tokenizer, true);
  }
  // Adds a token; true if a stop string is complete.
  bool add(int32_t id) {
    if (!decoder_) return false;
    if (const auto piece = decoder_->step(id)) text_ += *piece;
    return find_stop();
  }
  bool finish() {
    if (!decoder_ || stopped_) return stopped_;
    text_ += decoder_->flush();
    return find_stop();
  }
  // What was not handed out yet and can no longer become part of a stop string (all of it when `last`).
  std::string_view release(bool last) {
    size_t end = text_.size();
    if (!last) {
      for (const std::string& s : stop_) {
        for (size_t n = std::min(s.size() - 1, text_.size()); n > 0; --n) {
          if (text_.compare(text_.size() - n, n, s, 0, n) == 0) {
            end = std::min(end, text_.size() - n);
            break;
          }
        }
      }
    }
    if (end <= shown_) return {};
    const std::string_view piece(text_.data() + shown_, end - shown_);
    shown_ = end;
    return piece;
  }
  const std::string& text() const { return text_; }

 private:
  bool find_stop() {
    size_t at = std::string::npos;
    for (const std::string& s : stop_) {
      at = std::min(at, text_.find(s, searched_ >= s.size() ? searched_ - s.size() : 0));
    }
    searched_ = text_.size();
    if (at == std::string::npos) return false;
    text_.resize(at);
    stopped_ = true;
    return true;
  }

  std::optional<StreamDecoder> decoder_;
  std::vector<std::string> stop_;
  std::string text_;
  size_t shown_ = 0, searched_ = 0;
  bool stopped_ = false;
};

TokenLogprob logprob_of(std::span<const float> logits, int32_t id, int top) {
  std::vector<float> values(logits.size());
  log_softmax(logits, values);
  TokenLogprob out;
  out.id = id;
  out.logprob = values[static_cast<size_t>(id)];
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto count = std::min(static_cast<size_t>(std::max(top, 0)), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
                      return x > y || (x == y && a < b);
                    });
  for (size_t i = 0; i < count; ++i) out.top.emplace_back(order[i], values[static_cast<size_t>(order[i])]);
  return out;
}

// One answer in the making.
struct Answer {
  Generated result;
  std::vector<int32_t> history;  // prompt + generated
  TextTracker text;
  Sampler sampler;
  std::unique_ptr<KvCache> own_cache;
  KvCache* cache = nullptr;
  bool done = false;

  Answer(const Tokenizer* tokenizer, std::span<const int32_t> prompt, const GenerateOptions& options, uint64_t line)
      : history(prompt.begin(), prompt.end()),
        text(tokenizer, options.stop),
        sampler(options.seed, line, options.sampling.rng) {
    result.prompt_tokens = static_cast<int64_t>(prompt.size());
  }

  std::span<const int32_t> new_tokens(bool cached) const {
    const std::span<const int32_t> all(history);
    return cached ? all.subspan(static_cast<size_t>(cache->length())) : all;
  }

  // Picks the next token from the logits of the last one.
  void advance(std::span<const float> logits, const GenerateOptions& options, int64_t max_length,
               const TextCallback& on_text) {
    std::vector<int32_t> banned;
    if (!options.ignore_eos && static_cast<int64_t>(result.ids.size()) < options.min_tokens) {
      for (const int64_t id : options.end_tokens) banned.push_back(static_cast<int32_t>(id));
    }
    const int32_t id = sampler.draw(process_logits(logits, history, options.sampling, banned));
    if (options.logprobs >= 0) result.logprobs.push_back(logprob_of(logits, id, options.logprobs));
    result.ids.push_back(id);
    history.push_back(id);
    const bool ends = !options.ignore_eos &&
                      std::find(options.end_tokens.begin(), options.end_tokens.end(), id) != options.end_tokens.end();
    if (ends) {
      finish("stop");
    } else if (text.add(id)) {
      finish("stop");
    } else if (static_cast<int64_t>(result.ids.size()) >= options.max_tokens) {
      finish("length");
    } else if (static_cast<int64_t>(history.size()) >= max_length) {
      finish("context");
    }
    if (on_text) {
      const std::string_view piece = text.release(done);
      if (!piece.empty() && !on_text(piece) && !done) finish("cancelled");
    }
  }

  void finish(const char* reason) {
    done = true;
    result.finish_reason = text.finish() ? "stop" : reason;
    result.text = text.text();
  }
};

void check_options(const GenerateOptions& options, const Engine& engine) {
  options.sampling.validate();
  const int64_t vocab = engine.model().config().vocab_size;
  for (const auto& [id, bias] : options.sampling.logit_bias) {
    GRAFT_CHECK_HINT(id >= 0 && id < vocab, "graft tokenize shows the ids of a text",
                     "logit_bias names token {}, expected 0 to {}", id, vocab - 1);
  }
}

void check_prompt(std::span<const int32_t> prompt, const Engine& engine) {
  GRAFT_CHECK_HINT(!prompt.empty(), "give at least one token", "the prompt is empty");
  const int64_t vocab = engine.model().config().vocab_size;
  for (const int32_t id : prompt) {
    GRAFT_CHECK(id >= 0 && id < vocab, "the prompt holds token id {}, expected 0 to {}", id, vocab - 1);
  }
}

}  // namespace

Generated generate(Engine& engine, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                   const GenerateOptions& options, uint64_t line, const TextCallback& on_text, KvCache* cache) {
  check_prompt(prompt, engine);
  check_options(options, engine);
  Answer answer(tokenizer, prompt, options, line);
  if (options.max_tokens <= 0) {
    answer.finish("length");
    return std::move(answer.result);
  }
  int64_t limit = engine.options().max_length;
  if (cache != nullptr) {
    limit = std::min(limit, cache->max_length());
    // The last token is fed again where the cache has seen it: its logits are what the answer begins with.
    cache->set_length(std::min(cache->length(), answer.result.prompt_tokens - 1));
  }
  if (options.use_cache && cache == nullptr) {
    answer.own_cache = std::make_unique<KvCache>(engine.model().config(),
                                                 std::min(limit, answer.result.prompt_tokens + options.max_tokens));
    cache = answer.own_cache.get();
  }
  answer.cache = cache;
  double begin = seconds_now();
  while (!answer.done) {
    const Feed feed{options.use_cache ? cache : nullptr, answer.new_tokens(options.use_cache)};
    const auto logits = engine.forward(std::span<const Feed>(&feed, 1));
    if (answer.result.ids.empty()) {
      answer.result.prefill_seconds = seconds_now() - begin;
      begin = seconds_now();
    }
    answer.advance({logits.row(0), static_cast<size_t>(logits.extent(1))}, options, limit, on_text);
  }
  answer.result.decode_seconds = seconds_now() - begin;
  return std::move(answer.result);
}

std::vector<Generated> generate_batch(Engine& engine, const Tokenizer* tokenizer,
                                      const std::vector<std::vector<int32_t>>& prompts,
                                      const GenerateOptions& options) {
  check_options(options, engine);
  std::vector<Generated> results(prompts.size());
  const int64_t limit = engine.options().max_length;
  std::vector<std::pair<size_t, std::unique_ptr<Answer>>> active;
  size_t next = 0;
  while (next < prompts.size() || !active.empty()) {
    while (next < prompts.size() && static_cast<int64_t>(active.size()) < engine.options().max_sequences) {
      check_prompt(prompts[next], engine);
      auto answer = std::make_unique<Answer>(tokenizer, prompts[next], options, next);
      answer->own_cache = std::make_unique<KvCache>(engine.model().config(),
                                                    std::min(limit, answer->result.prompt_tokens + options.max_tokens));
      answer->cache = answer->own_cache.get();
      if (options.max_tokens <= 0) {
        answer->finish("length");
        results[next] = std::move(answer->result);
      } else {
        active.emplace_back(next, std::move(answer));
      }
      ++next;
    }
    if (active.empty()) continue;
    std::vector<Feed> feeds;
    for (auto& [index, answer] : active) feeds.push_back({answer->cache, answer->new_tokens(true)});
    const double begin = seconds_now();
    const auto logits = engine.forward(feeds);
    const double each = (seconds_now() - begin) / static_cast<double>(active.size());
    for (size_t i = 0; i < active.size(); ++i) {
      Answer& answer = *active[i].second;
      (answer.result.ids.empty() ? answer.result.prefill_seconds : answer.result.decode_seconds) += each;
      answer.advance({logits.row(static_cast<int64_t>(i)), static_cast<size_t>(logits.extent(1))}, options, limit, {});
      if (answer.done) results[active[i].first] = std::move(answer.result);
    }
    std::erase_if(active, [](const auto& entry) { return entry.second->done; });
  }
  return results;
}

void apply_generation_config(const GenerationConfig& g, GenerateOptions& options,
                             const std::function<bool(std::string_view)>& given) {
  SamplingOptions& s = options.sampling;
  const bool samples = g.do_sample.value_or(false);
  if (!given("temperature")) s.temperature = samples ? g.temperature.value_or(1.0) : 0.0;
  if (!given("top-k")) s.top_k = samples ? g.top_k.value_or(0) : 0;
  if (!given("top-p")) s.top_p = samples ? g.top_p.value_or(1.0) : 1.0;
  if (!given("min-p")) s.min_p = samples ? g.min_p.value_or(0.0) : 0.0;
  if (!given("repetition-penalty")) s.repetition_penalty = g.repetition_penalty.value_or(1.0);
  if (!given("frequency-penalty")) s.frequency_penalty = g.frequency_penalty.value_or(0.0);
  if (!given("presence-penalty")) s.presence_penalty = g.presence_penalty.value_or(0.0);
}

}  // namespace graft
