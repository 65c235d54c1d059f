#include "graft/infer/generate.h"

#include "graft/models/test_support.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

using test::lora_config;
using test::random_adapter;
using test::TempDir;
using test::tiny_config;
using test::Workers;
using test::write_tiny_model;

bool is_utf8(std::string_view text) { return find_invalid_utf8(text) == std::string_view::npos; }
bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

// A random model with the vocabulary of a byte-level tokenizer.
class Generate : public testing::Test {
 protected:
  Generate() : tokenizer_(Tokenizer::load("tests/data/tokenizer/qwen2")) {
    Json config = tiny_config("qwen2");
    config["vocab_size"] = tokenizer_.vocab_size();
    config["eos_token_id"] = tokenizer_.vocab_size() - 1;
    config["max_position_embeddings"] = 200;
    write_tiny_model(dir_.path(), config);
    model_ = Model::load(workers_.context, ModelFolder::open(dir_.path(), supported_model_types()));
  }

  Engine engine(EngineOptions options = {}, const AdapterWeights* adapter = nullptr) {
    return Engine(workers_.context, model_, adapter, options);
  }
  std::vector<int32_t> prompt(size_t n, uint64_t seed) const {
    const RandomStream stream(seed, 8);
    std::vector<int32_t> ids(n);
    for (size_t i = 0; i < n; ++i) {
      ids[i] = static_cast<int32_t>(stream.word(i) % static_cast<uint64_t>(tokenizer_.vocab_size()));
    }
    return ids;
  }
  static GenerateOptions sampled(int64_t max_tokens, uint64_t seed = 1) {
    GenerateOptions o;
    o.sampling.temperature = 1.2;
    o.max_tokens = max_tokens, o.seed = seed, o.logprobs = 2;
    return o;
  }

  TempDir dir_;
  Workers workers_;
  Tokenizer tokenizer_;
  Model model_;
};

void expect_same(const Generated& a, const Generated& b) {
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.finish_reason, b.finish_reason);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    EXPECT_EQ(a.logprobs[i].id, b.logprobs[i].id);
    EXPECT_EQ(a.logprobs[i].logprob, b.logprobs[i].logprob) << i;  // bit for bit
    EXPECT_EQ(a.logprobs[i].top, b.logprobs[i].top) << i;
  }
}

TEST_F(Generate, AloneInABatchAndWithoutCacheAreTheSame) {
  std::vector<std::vector<int32_t>> prompts;
  for (const size_t n : {3, 1, 17, 70, 9}) prompts.push_back(prompt(n, n));
  Engine one = engine();
  EngineOptions many_options;
  many_options.max_sequences = 3, many_options.chunk_tokens = 16;
  Engine many = engine(many_options);
  for (const bool sample : {false, true}) {
    GenerateOptions options = sampled(12);
    if (!sample) options.sampling.temperature = 0;
    const std::vector<Generated> batch = generate_batch(many, &tokenizer_, prompts, options);
    ASSERT_EQ(batch.size(), prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      SCOPED_TRACE(i);
      options.use_cache = true;
      const Generated alone = generate(one, &tokenizer_, prompts[i], options, i);
      EXPECT_EQ(alone.ids.size(), 12u);
      EXPECT_EQ(alone.finish_reason, "length");
      expect_same(batch[i], alone);
      options.use_cache = false;
      expect_same(generate(one, &tokenizer_, prompts[i], options, i), alone);
    }
  }
}

TEST_F(Generate, PrefillInPiecesGivesTheSameBits) {
  const std::vector<int32_t> ids = prompt(150, 4);
  const auto logits = [&](int64_t chunk) {
    EngineOptions options;
    options.chunk_tokens = chunk;
    Engine e = engine(options);
    KvCache cache(model_.config(), 160);
    const Feed feed{&cache, ids};
    const auto z = e.forward(std::span<const Feed>(&feed, 1));
    return std::vector<float>(z.data(), z.data() + z.size());
  };
  const std::vector<float> whole = logits(512);
  for (const int64_t chunk : {1, 7, 64, 149}) EXPECT_EQ(logits(chunk), whole) << chunk;
}

TEST_F(Generate, EndTokens) {
  Engine e = engine();
  const std::vector<int32_t> ids = prompt(5, 1);
  GenerateOptions options = sampled(10);
  const Generated free = generate(e, &tokenizer_, ids, options);
  options.end_tokens = {free.ids[3]};
  const auto first = std::find(free.ids.begin(), free.ids.end(), free.ids[3]) - free.ids.begin();
  const Generated ended = generate(e, &tokenizer_, ids, options);
  EXPECT_EQ(ended.ids, std::vector<int32_t>(free.ids.begin(), free.ids.begin() + first + 1));    // with the end token
  EXPECT_EQ(ended.text, tokenizer_.decode({free.ids.begin(), free.ids.begin() + first}, true));  // without it
  EXPECT_EQ(ended.finish_reason, "stop");

  options.ignore_eos = true;
  expect_same(generate(e, &tokenizer_, ids, options), free);

  options.ignore_eos = false, options.min_tokens = 6;
  const Generated longer = generate(e, &tokenizer_, ids, options);
  EXPECT_GE(longer.ids.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_NE(longer.ids[i], options.end_tokens[0]);

  options.max_tokens = 0;
  const Generated none = generate(e, &tokenizer_, ids, options);
  EXPECT_TRUE(none.ids.empty());
  EXPECT_EQ(none.finish_reason, "length");
}

TEST_F(Generate, StreamsWholeCharactersAndNothingTwice) {
  Engine e = engine();
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    std::string shown;
    bool whole = true;
    const Generated g = generate(e, &tokenizer_, prompt(4, seed), sampled(40, seed), 0, [&](std::string_view piece) {
      // A byte of a character that is split over tokens is held back; what no character can start with comes as U+FFFD.
      whole = whole && !piece.empty() && is_utf8(piece);
      shown += piece;
      return true;
    });
    EXPECT_TRUE(whole) << seed;
    EXPECT_EQ(shown, g.text) << seed;
    EXPECT_EQ(g.text, tokenizer_.decode(g.ids, true)) << seed;
  }
}

TEST_F(Generate, StopStringsSplitOverTokens) {
  Engine e = engine();
  int split = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const std::vector<int32_t> ids = prompt(4, seed);
    GenerateOptions options = sampled(30, seed);
    const Generated free = generate(e, &tokenizer_, ids, options);
    // The end of one token and the beginning of the next, wherever both are plain.
    for (size_t i = 5; i + 1 < free.ids.size() && i < 15; ++i) {
      const std::string a = tokenizer_.decode({free.ids[i]}, true), b = tokenizer_.decode({free.ids[i + 1]}, true);
      if (a.size() < 2 || b.empty() || !is_ascii(a) || !is_ascii(b)) continue;
      const std::string stop = a.substr(a.size() - 2) + b.substr(0, 1);
      const size_t at = free.text.find(stop);
      if (at == std::string::npos) continue;
      ++split;
      options.stop = {"never in any text", stop, ""};
      std::string shown;
      const Generated ended = generate(e, &tokenizer_, ids, options, 0, [&](std::string_view piece) {
        shown += piece;
        return true;
      });
      EXPECT_EQ(ended.text, free.text.substr(0, at));
      EXPECT_EQ(shown, ended.text);  // nothing of the stop string was ever shown
      EXPECT_EQ(ended.finish_reason, "stop");
      EXPECT_TRUE(std::equal(ended.ids.begin(), ended.ids.end(), free.ids.begin()));
      break;
    }
  }
  EXPECT_GE(split, 3);  // the test tests something
}

TEST_F(Generate, TheCallbackEndsTheAnswer) {
  Engine e = engine();
  int calls = 0;
  const Generated g =
      generate(e, &tokenizer_, prompt(4, 1), sampled(40), 0, [&](std::string_view) { return ++calls < 3; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(g.finish_reason, "cancelled");
  EXPECT_LT(g.ids.size(), 40u);
}

TEST_F(Generate, TheContextEnds) {
  EngineOptions small;
  small.max_length = 12;
  Engine e = engine(small);
  for (const bool use_cache : {true, false}) {
    GenerateOptions options = sampled(100);
    options.use_cache = use_cache;
    const Generated g = generate(e, &tokenizer_, prompt(8, 1), options);
    EXPECT_EQ(g.finish_reason, "context");
    EXPECT_EQ(g.ids.size(), 4u);
  }
  try {
    generate(e, &tokenizer_, prompt(13, 1), sampled(5));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("13"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("12"), std::string::npos) << error.what();
  }
}

TEST_F(Generate, ADialogueGoesOnInItsCache) {
  Engine e = engine();
  KvCache cache(model_.config(), 100);
  std::vector<int32_t> ids = prompt(6, 1);
  for (int turn = 0; turn < 3; ++turn) {
    SCOPED_TRACE(turn);
    const Generated in_cache = generate(e, &tokenizer_, ids, sampled(7), 0, {}, &cache);
    expect_same(in_cache, generate(e, &tokenizer_, ids, sampled(7)));
    // The same prompt again: the cache holds more than it.
    expect_same(generate(e, &tokenizer_, ids, sampled(7), 0, {}, &cache), in_cache);
    ids.insert(ids.end(), in_cache.ids.begin(), in_cache.ids.end());
    ids.push_back(turn);
  }
}

TEST_F(Generate, AFullCacheIsAnError) {
  Engine e = engine();
  KvCache cache(model_.config(), 4);
  const std::vector<int32_t> ids = prompt(5, 1);
  const Feed feed{&cache, ids};
  try {
    e.forward(std::span<const Feed>(&feed, 1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("holds 4"), std::string::npos) << error.what();
  }
}

TEST_F(Generate, BadPromptsAreErrors) {
  Engine e = engine();
  EXPECT_THROW(generate(e, &tokenizer_, {}, sampled(5)), Error);
  const std::vector<int32_t> beyond = {1, static_cast<int32_t>(tokenizer_.vocab_size())}, negative = {-1};
  EXPECT_THROW(generate(e, &tokenizer_, beyond, sampled(5)), Error);
  EXPECT_THROW(generate(e, &tokenizer_, negative, sampled(5)), Error);
}

TEST_F(Generate, ABiasOfATokenThatIsNotThereIsAnError) {
  Engine engine = this->engine();
  GenerateOptions options;
  options.sampling.logit_bias = {{static_cast<int32_t>(model_.config().vocab_size), 1.0}};
  const std::vector<int32_t> prompt = {1};
  EXPECT_THROW(generate(engine, nullptr, prompt, options), Error);
  EXPECT_THROW(generate_batch(engine, nullptr, {prompt}, options), Error);
}

TEST_F(Generate, AdaptersAreExchanged) {
  const AdapterWeights one = random_adapter(workers_.context, model_, lora_config(4, "q_proj,down_proj"), 7);
  const AdapterWeights two = random_adapter(workers_.context, model_, lora_config(4, "q_proj,down_proj"), 8);
  const AdapterWeights other = random_adapter(workers_.context, model_, lora_config(2, "all-linear"), 9);
  const std::vector<int32_t> ids = prompt(20, 3);
  const auto logits = [&](Engine& e) {
    KvCache cache(model_.config(), 30);
    const Feed feed{&cache, ids};
    const auto z = e.forward(std::span<const Feed>(&feed, 1));
    return std::vector<float>(z.data(), z.data() + z.size());
  };
  const auto fresh = [&](const AdapterWeights* adapter) {
    Engine e = engine({}, adapter);
    return logits(e);
  };
  Engine e = engine();
  const std::vector<float> base = logits(e);
  EXPECT_NE(fresh(&one), base);
  const std::vector<const AdapterWeights*> order = {&one, nullptr, &two, &other, nullptr, &one};
  for (const AdapterWeights* adapter : order) {
    e.set_adapter(adapter);
    EXPECT_EQ(logits(e), fresh(adapter));
  }
  e.set_adapter(nullptr);
  EXPECT_EQ(logits(e), base);
  // Every kind has been used: exchanging takes no memory.
  const int64_t buffers = Buffer::num_created();
  for (const AdapterWeights* adapter : order) e.set_adapter(adapter);
  EXPECT_EQ(Buffer::num_created(), buffers);
}

}  // namespace
}  // namespace graft
