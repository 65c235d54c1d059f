// Generation against what transformers answered (fixtures/golden/KIND/generation.json), and the promise that cache, batch and chunks never show.
#include <cstring>

#include "graft/base/random.h"
#include "graft/infer/generate.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

Model load_model(Context& context, const std::string& folder) {
  return Model::load(context, ModelFolder::open(folder, supported_model_types()));
}

std::vector<int32_t> ids_of(const Json& list) { return list.get<std::vector<int32_t>>(); }

bool same_bits(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TokenLogprob& x, const TokenLogprob& y) {
    return x.id == y.id && std::memcmp(&x.logprob, &y.logprob, sizeof x.logprob) == 0 && x.top == y.top;
  });
}

// The rival that transformers lists at each rank, where the call is not closer than twice the tolerance.
void check_top(Figures& figures, const std::string& where, const Json& want, const TokenLogprob& got) {
  ASSERT_EQ(got.top.size(), want.size()) << where;
  for (size_t i = 0; i < want.size(); ++i) {
    figures.check("top 5 log-probabilities", where, std::fabs(got.top[i].second - want[i][1].get<double>()), kLogprob);
    const bool close =
        (i > 0 && want[i - 1][1].get<double>() - want[i][1].get<double>() < 2 * kLogprob) ||
        (i + 1 < want.size() && want[i][1].get<double>() - want[i + 1][1].get<double>() < 2 * kLogprob) ||
        i + 1 == want.size();
    if (close) continue;
    EXPECT_EQ(got.top[i].first, want[i][0].get<int32_t>()) << where << " rank " << i;
  }
}

TEST(ParityGeneration, GreedyIdsAndLogprobs) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Model model = load_model(machine.context, fixtures() + "/models/" + kind);
    EngineOptions engine_options;
    engine_options.max_sequences = 3;  // fewer than prompts: answers join and leave the batch
    Engine engine(machine.context, model, nullptr, engine_options);
    const Json golden = read_json(fixtures() + "/golden/" + kind + "/generation.json");
    std::map<double, std::vector<const Json*>> by_penalty;
    for (const Json& g : golden.at("greedy")) by_penalty[g.value("repetition_penalty", 1.0)].push_back(&g);
    for (const auto& [penalty, cases] : by_penalty) {
      GenerateOptions options;
      options.ignore_eos = true;
      options.logprobs = 5;
      options.sampling.repetition_penalty = penalty;
      std::vector<std::vector<int32_t>> prompts;
      for (const Json* g : cases) {
        prompts.push_back(ids_of(g->at("prompt")));
        options.max_tokens = static_cast<int64_t>(g->at("tokens").size());
      }
      const std::vector<Generated> batched = generate_batch(engine, nullptr, prompts, options);
      for (size_t i = 0; i < cases.size(); ++i) {
        const Json& want = *cases[i];
        const std::string where = fmt::format("{} penalty {} prompt {}", kind, penalty, i);
        options.max_tokens = static_cast<int64_t>(want.at("tokens").size());
        options.use_cache = true;
        const Generated cached = generate(engine, nullptr, prompts[i], options);
        options.use_cache = false;
        const Generated uncached = generate(engine, nullptr, prompts[i], options);
        figures.same("greedy answers", where, cached.ids == ids_of(want.at("tokens")));
        figures.same("bits without the cache", where, same_bits(cached.logprobs, uncached.logprobs));
        figures.same("bits in a batch", where, same_bits(cached.logprobs, batched[i].logprobs));
        ASSERT_EQ(cached.logprobs.size(), want.at("tokens").size()) << where;
        for (size_t t = 0; t < cached.logprobs.size(); ++t) {
          figures.check("log-probability", where,
                        std::fabs(cached.logprobs[t].logprob - want.at("logprobs")[t].get<double>()), kLogprob);
          if (want.contains("top5")) {
            check_top(figures, fmt::format("{} token {}", where, t), want.at("top5")[t], cached.logprobs[t]);
          }
        }
      }
    }
  }
}

// Tokens that transformers drew: the log-probability that each had, given those before it.
TEST(ParityGeneration, LogprobsOfSampledTokens) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Model model = load_model(machine.context, fixtures() + "/models/" + kind);
    Engine engine(machine.context, model, nullptr, {});
    const Json golden = read_json(fixtures() + "/golden/" + kind + "/generation.json");
    for (const Json& g : golden.at("sampled")) {
      std::vector<int32_t> history = ids_of(g.at("prompt"));
      SamplingOptions sampling;
      sampling.temperature = g.at("temperature");
      KvCache cache(model.config(), static_cast<int64_t>(history.size() + g.at("tokens").size()));
      std::vector<int32_t> fed = history;
      for (size_t t = 0; t < g.at("tokens").size(); ++t) {
        const Feed feed{&cache, fed};
        const auto logits = engine.forward(std::span<const Feed>(&feed, 1));
        const int32_t id = g.at("tokens")[t];
        const Distribution d =
            process_logits({logits.row(0), static_cast<size_t>(logits.extent(1))}, history, sampling);
        const auto it =
            std::find_if(d.candidates.begin(), d.candidates.end(), [&](const auto& c) { return c.first == id; });
        ASSERT_NE(it, d.candidates.end());
        figures.check("log-probability", fmt::format("{} token {}", kind, t),
                      std::fabs(it->second - g.at("logprobs")[t].get<double>()), kLogprob);
        history.push_back(id);
        fed = {id};
      }
    }
  }
}

TEST(ParityGeneration, TrainedModelOfBfloat16) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  const std::string folder = fixtures() + "/models/pystd-5m";
  const Model model = load_model(machine.context, folder);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  Engine engine(machine.context, model, nullptr, {});
  const Json golden = read_json(fixtures() + "/golden/pystd-5m/generation.json");
  for (const Json& g : golden.at("greedy")) {
    GenerateOptions options;
    options.ignore_eos = true;
    options.logprobs = 0;
    options.max_tokens = static_cast<int64_t>(g.at("tokens").size());
    const std::string prompt = g.at("prompt");
    figures.same("prompt ids", prompt, tokenizer.encode_ids(prompt) == ids_of(g.at("ids")));
    const Generated answer = generate(engine, &tokenizer, ids_of(g.at("ids")), options);
    figures.same("greedy answers", prompt, answer.ids == ids_of(g.at("tokens")));
    ASSERT_EQ(answer.logprobs.size(), g.at("logprobs").size());
    for (size_t t = 0; t < answer.logprobs.size(); ++t) {
      figures.check("log-probability", prompt,
                    std::fabs(answer.logprobs[t].logprob - g.at("logprobs")[t].get<double>()), kLogprob);
    }
  }
}

// A model of random weights on disk, small and with more positions than the fixtures have.
struct Shape {
  const char* type;
  int64_t hidden, heads, kv_heads, head_dim, inner, layers, window;  // window 0: none
};
constexpr int64_t kPositions = 4608, kVocab = 97;

void write_random_model(const Shape& s, const std::string& folder) {
  Json config = {{"model_type", s.type},
                 {"vocab_size", kVocab},
                 {"hidden_size", s.hidden},
                 {"intermediate_size", s.inner},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"max_position_embeddings", kPositions},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 10000.0},
                 {"tie_word_embeddings", true},
                 {"hidden_act", "silu"},
                 {"torch_dtype", "float32"}};
  if (s.window > 0) config["sliding_window"] = s.window;
  write_file(folder + "/config.json", config.dump());
  const ModelConfig parsed = parse_model_config(config, folder + "/config.json", supported_model_types());
  std::vector<TensorToWrite> list;
  std::vector<std::vector<float>> values;
  for (const ExpectedTensor& t : family_of(parsed).tensors(parsed)) {
    if (t.name == "lm_head.weight") continue;
    const RandomStream random(7, stream_hash(t.name));
    std::vector<float> v(static_cast<size_t>(num_elements(t.shape)));
    for (size_t i = 0; i < v.size(); ++i) {
      const double u = random.uniform53(i) - 0.5;
      v[i] =
          static_cast<float>(t.shape.size() == 1 && t.name.find("bias") == std::string::npos ? 1 + 0.2 * u : 0.5 * u);
    }
    list.push_back({t.name, DType::kF32, t.shape, {}});
    values.push_back(std::move(v));
  }
  for (size_t i = 0; i < list.size(); ++i) list[i].bytes = as_bytes_of(values[i]);
  write_safetensors(folder + "/model.safetensors", list);
}

std::vector<float> last_logits(Engine& engine, KvCache* cache, std::span<const int32_t> ids) {
  const Feed feed{cache, ids};
  const auto logits = engine.forward(std::span<const Feed>(&feed, 1));
  return {logits.row(0), logits.row(0) + logits.extent(1)};
}

// One token after n - 1 cached ones, n tokens at once into the cache, and n tokens without one: the same bits, on any number of threads.
TEST(ParityEngine, DecodeGivesTheBitsOfPrefill) {
  Figures figures;
  const std::vector<Shape> shapes = {
      {"qwen2", 20, 4, 2, 10, 36, 2, 0}, {"mistral", 24, 3, 1, 8, 40, 2, 100}, {"qwen3", 16, 2, 2, 12, 24, 1, 0}};
  for (const Shape& shape : shapes) {
    const TempDir folder;
    write_random_model(shape, folder.path());
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < 4097; ++i) ids.push_back(static_cast<int32_t>((i * i * 31 + i * 7 + 3) % kVocab));
    std::map<int64_t, std::vector<float>> first;
    for (const int threads : {1, 7}) {
      Machine machine(threads);
      const Model model = load_model(machine.context, folder.path());
      EngineOptions options;
      options.chunk_tokens = threads == 1 ? 512 : 130;  // pieces of another length must not show either
      Engine engine(machine.context, model, nullptr, options), whole(machine.context, model, nullptr, {});
      KvCache decoding(model.config(), 4097), prefilling(model.config(), 4097);
      for (const int64_t n : {1, 63, 64, 65, 511, 512, 513, 4097}) {
        const std::span<const int32_t> prompt(ids.data(), static_cast<size_t>(n));
        const std::string where = fmt::format("{} {} keys {} threads", shape.type, n, threads);
        prefilling.set_length(0);
        const std::vector<float> prefilled = last_logits(engine, &prefilling, prompt);
        // The cache of the last length goes on to n - 1; first token by token, then in odd pieces.
        while (decoding.length() < n - 1) {
          const int64_t left = n - 1 - decoding.length(), piece = std::min<int64_t>(left, n <= 65 ? 1 : 37);
          last_logits(engine, &decoding,
                      prompt.subspan(static_cast<size_t>(decoding.length()), static_cast<size_t>(piece)));
        }
        decoding.set_length(n - 1);
        figures.same("decode and prefill", where, last_logits(engine, &decoding, prompt.last(1)) == prefilled);
        if (shape.window == 0 || n <= 513) {
          figures.same("cache and none", where, last_logits(whole, nullptr, prompt) == prefilled);
        }
        EXPECT_TRUE(std::all_of(prefilled.begin(), prefilled.end(), [](float x) { return std::isfinite(x); })) << where;
        const auto [it, is_first] = first.emplace(n, prefilled);
        if (!is_first) figures.same("1 and 7 threads", where, it->second == prefilled);
      }
    }
  }
}

}  // namespace
}  // namespace graft::test
