#include "graft/models/decoder.h"

#include <cstddef>

#include "graft/kernels/optimizer.h"
#include "graft/models/test_support.h"
#include "tests/support/count_allocations.h"

namespace graft {
namespace {

using test::DecoderBench;
using test::lora_config;
using test::random_adapter;
using test::TempDir;
using test::tiny_config;
using test::TinyBatch;
using test::Workers;
using test::write_tiny_model;

const std::string kAllSeven = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";

DecoderOptions options_of(DecoderOutput output, DType dtype = DType::kF32, bool train_adapter = false) {
  DecoderOptions options;
  options.output = output, options.dtype = dtype, options.train_adapter = train_adapter;
  options.head_chunk_rows = 3;
  return options;
}

// A tiny model of a family, in both precisions.
struct Tiny {
  explicit Tiny(const Json& config, DType dtype = DType::kF32) {
    write_tiny_model(dir.path(), config, dtype);
    const ModelFolder folder = ModelFolder::open(dir.path(), supported_model_types());
    single = Model::load(workers.context, folder);
    ModelLoadOptions f64;
    f64.f64 = true;
    exact = Model::load(workers.context, folder, f64);
  }
  TempDir dir;
  Workers workers;
  Model single, exact;
};

// The change of the loss along one random direction in every trained tensor at once (spec lora.md 2, item 4), or in those whose name ends in `only`.
void check_direction(Tiny& tiny, const AdapterWeights& adapter, DecoderOptions options, std::string_view only = "") {
  options.dtype = DType::kF64;
  DecoderBench exact(tiny.workers.context, tiny.exact, options, {&adapter});
  options.dtype = DType::kF32;
  DecoderBench single(tiny.workers.context, tiny.single, options, {&adapter});
  const double loss = exact.run();
  EXPECT_NEAR(single.run(), loss, 2e-6 * loss);  // f32 through two layers
  const auto gradient = exact.gradients(), narrow = single.gradients();
  ASSERT_EQ(gradient.size(), adapter.tensors.size());
  const auto kept = exact.trained;
  std::map<std::string, std::vector<double>> direction;
  double want = 0, got32 = 0, length = 0;
  for (const auto& [name, values] : kept) {
    const RandomStream stream(5, stream_hash(name));
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = name.ends_with(only) ? stream.uniform53(i) * 2 - 1 : 0;
      direction[name].push_back(d);
      want += d * gradient.at(name)[i];
      got32 += d * narrow.at(name)[i];
      length += d == 0 ? 0 : gradient.at(name)[i] * gradient.at(name)[i] / 3;
    }
  }
  const double h = 1e-6;
  const auto at = [&](double step) {
    for (auto& [name, values] : exact.trained) {
      for (size_t i = 0; i < values.size(); ++i) values[i] = kept.at(name)[i] + step * direction.at(name)[i];
    }
    return exact.run();
  };
  const double difference = (at(h) - at(-h)) / (2 * h), scale = std::max(std::fabs(want), std::sqrt(length));
  EXPECT_NEAR(difference, want, 1e-6 * scale);
  EXPECT_NEAR(difference, got32, 1e-4 * scale);
}

TEST(Decoder, LossFollowsTheGradientOfEveryFamily) {
  for (const std::string family :
       {"qwen2", "qwen3", "llama", "mistral", "mixtral", "qwen2_moe", "qwen3_moe", "graft_moe"}) {
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(family + (tied ? " tied" : " untied"));
      Tiny tiny(tiny_config(family, tied));
      const bool experts = tiny.single.config().moe.has_value();
      const LoraConfig config = lora_config(3, experts ? ".*(_proj|w[123]|mlp\\.gate|moe\\.gate)" : kAllSeven);
      const AdapterWeights adapter = random_adapter(tiny.workers.context, tiny.single, config, 7);
      DecoderOptions options = options_of(DecoderOutput::kTrain, DType::kF32, true);
      for (const bool joint : experts ? std::vector<bool>{true, false} : std::vector<bool>{false}) {
        if (experts) options.aux_coef = 0.2, options.z_coef = 0.03, options.aux_joint = joint;
        check_direction(tiny, adapter, options);
      }
    }
  }
}

TEST(Decoder, LossFollowsTheGradientOfEveryKindOfAdapter) {
  Tiny tiny(tiny_config("qwen2"));
  const DecoderOptions train = options_of(DecoderOutput::kTrain, DType::kF32, true);
  {
    SCOPED_TRACE("head, label smoothing");
    DecoderOptions options = train;
    options.label_smoothing = 0.1;
    check_direction(tiny, random_adapter(tiny.workers.context, tiny.single, lora_config(3, "q_proj,lm_head"), 7),
                    options);
  }
  for (const bool at_rank : {false, true}) {
    SCOPED_TRACE(at_rank ? "dropout of rank activations on the head" : "dropout on the head");
    const AdapterWeights adapter = random_adapter(tiny.workers.context, tiny.single, lora_config(3, "lm_head"), 7);
    DecoderOptions options = train;
    options.dropout = 0.4, options.dropout_at_rank = at_rank;
    check_direction(tiny, adapter, options);
    DecoderBench with(tiny.workers.context, tiny.single, options, {&adapter});
    DecoderBench without(tiny.workers.context, tiny.single, train, {&adapter});
    EXPECT_GT(std::fabs(with.run() - without.run()), 1e-4);
  }
  {
    // The norm is a constant to the gradient, so that only a step of the magnitudes is followed; A and B are the ops' tests'.
    SCOPED_TRACE("DoRA on the head and the embedding");
    LoraConfig config = lora_config(3, "q_proj,lm_head,embed_tokens");
    config.use_dora = true;
    const AdapterWeights adapter = random_adapter(tiny.workers.context, tiny.single, config, 7);
    ASSERT_EQ(adapter.tensors.at("lm_head.lora_magnitude_vector").rows, 40);
    ASSERT_EQ(adapter.tensors.at("model.embed_tokens.lora_magnitude_vector").rows, 24);
    check_direction(tiny, adapter, train, "magnitude_vector");
  }
  {
    SCOPED_TRACE("embedding");
    AdapterWeights adapter =
        random_adapter(tiny.workers.context, tiny.single, lora_config(3, "q_proj,embed_tokens"), 7);
    const RandomStream stream(3, 3);
    uint64_t i = 0;
    for (float& v : adapter.tensors.at("model.embed_tokens.lora_A").values()) v = stream.uniform(i++) - 0.5f;
    check_direction(tiny, adapter, train);
  }
  {
    SCOPED_TRACE("modules_to_save");
    LoraConfig config = lora_config(3, "v_proj,down_proj");
    config.modules_to_save = {"lm_head", "embed_tokens", "model.norm"};
    check_direction(tiny, random_adapter(tiny.workers.context, tiny.single, config, 7), train);
  }
  {
    SCOPED_TRACE("rank pattern");
    LoraConfig config = lora_config(2, kAllSeven);
    config.rank_pattern = {{"k_proj", 4}}, config.alpha_pattern = {{"up_proj", 3.0}}, config.use_rslora = true;
    check_direction(tiny, random_adapter(tiny.workers.context, tiny.single, config, 7), train);
  }
}

// transformers makes pad_token_id the padding_idx of its embedding: looking the token up does not train its row; a tied head still does.
TEST(Decoder, TheRowOfThePadTokenIsNotTrainedByLookup) {
  for (const bool tied : {false, true}) {
    SCOPED_TRACE(tied ? "tied" : "untied");
    Json config = tiny_config("qwen2", tied);
    Tiny plain(config);
    const TinyBatch batch;
    const int64_t pad = batch.ids[1], hidden = config["hidden_size"];
    config["pad_token_id"] = pad;
    Tiny padded(config);
    DecoderOptions options = options_of(DecoderOutput::kTrain, DType::kF64);
    options.train_base = true;
    DecoderBench with(plain.workers.context, plain.exact, options),
        without(padded.workers.context, padded.exact, options);
    EXPECT_EQ(with.run(), without.run());
    const auto all = with.gradients(), some = without.gradients();
    const std::vector<double>&all_rows = all.at("model.embed_tokens.weight"),
          &rows = some.at("model.embed_tokens.weight");
    for (size_t i = 0; i < rows.size(); ++i) {
      if (static_cast<int64_t>(i) / hidden != pad) {
        ASSERT_EQ(rows[i], all_rows[i]);
      } else {
        ASSERT_NE(rows[i], all_rows[i]);
        ASSERT_EQ(rows[i] != 0, tied);
      }
    }
    // The same of an adapter on the embedding.
    const AdapterWeights adapter =
        random_adapter(padded.workers.context, padded.single, lora_config(3, "embed_tokens"), 7);
    DecoderBench lora(padded.workers.context, padded.exact, options_of(DecoderOutput::kTrain, DType::kF64, true),
                      {&adapter});
    lora.run();
    const std::vector<double> a = lora.gradients().at("model.embed_tokens.lora_A");
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(a[static_cast<size_t>(pad * 3 + i)], 0);
      EXPECT_NE(a[static_cast<size_t>(batch.ids[0] * 3 + i)], 0);
    }
  }
}

TEST(Decoder, ZeroBIsTheBaseBitForBit) {
  Tiny tiny(tiny_config("qwen2"), DType::kBF16);
  const AdapterWeights fresh =
      AdapterWeights::create(tiny.workers.context, tiny.single, lora_config(4, kAllSeven + ",lm_head"), "kaiming", 1);
  DecoderBench base(tiny.workers.context, tiny.single, options_of(DecoderOutput::kLogits));
  DecoderBench adapted(tiny.workers.context, tiny.single, options_of(DecoderOutput::kLogits), {&fresh});
  base.run(), adapted.run();
  EXPECT_EQ(base.logits(), adapted.logits());
}

TEST(Decoder, FirstGradientIsZeroForAAndNotForB) {
  Tiny tiny(tiny_config("qwen2"));
  const AdapterWeights fresh =
      AdapterWeights::create(tiny.workers.context, tiny.single, lora_config(4, kAllSeven), "kaiming", 1);
  DecoderBench b(tiny.workers.context, tiny.single, options_of(DecoderOutput::kTrain, DType::kF32, true), {&fresh});
  b.run();
  int seen = 0;
  const auto largest = [](const std::vector<double>& values) {
    double most = 0;
    for (double x : values) most = std::max(most, std::fabs(x));
    return most;
  };
  for (const auto& [name, gradient] : b.gradients()) {
    ++seen;
    EXPECT_EQ(largest(gradient) == 0, name.ends_with(".lora_A")) << name;
  }
  EXPECT_EQ(seen, 2 * 7 * 2);
  // After an update of B every tensor has a gradient.
  for (const auto& [name, gradient] : b.gradients()) {
    for (size_t i = 0; i < gradient.size(); ++i) b.trained[name][i] -= 0.1 * gradient[i];
  }
  b.run();
  for (const auto& [name, gradient] : b.gradients()) EXPECT_GT(largest(gradient), 0) << name;
}

TEST(Decoder, FullTrainingReachesEveryParameter) {
  for (const bool tied : {true, false}) {
    Tiny tiny(tiny_config("qwen3", tied));
    DecoderOptions options = options_of(DecoderOutput::kTrain);
    options.train_base = true;
    DecoderBench b(tiny.workers.context, tiny.single, options);
    b.run();
    const auto gradients = b.gradients();
    EXPECT_EQ(gradients.size(), tiny.single.parameters().size());
    for (const auto& [name, gradient] : gradients) {
      EXPECT_TRUE(std::any_of(gradient.begin(), gradient.end(), [](double x) { return x != 0; })) << name;
    }
  }
}

TEST(Decoder, RecomputeGivesTheSameBitsFromLessMemory) {
  Json config = tiny_config("qwen2");
  config["num_hidden_layers"] = 6;
  Tiny tiny(config);
  const AdapterWeights adapter = random_adapter(tiny.workers.context, tiny.single, lora_config(4, kAllSeven), 7);
  DecoderBench plain(tiny.workers.context, tiny.single, options_of(DecoderOutput::kTrain, DType::kF32, true),
                     {&adapter});
  const double loss = plain.run();
  for (const int every : {1, 2, 3}) {
    DecoderBench b(tiny.workers.context, tiny.single, options_of(DecoderOutput::kTrain, DType::kF32, true), {&adapter},
                   every);
    EXPECT_EQ(b.run(), loss) << every;
    EXPECT_EQ(b.gradients(), plain.gradients()) << every;
    EXPECT_LT(b.plan.arena_bytes(), plain.plan.arena_bytes()) << every;
  }
}

TEST(Decoder, ATrainStepAllocatesNothing) {
  Tiny tiny(tiny_config("qwen2"));
  const AdapterWeights adapter = random_adapter(tiny.workers.context, tiny.single, lora_config(4, kAllSeven), 7);
  DecoderBench b(tiny.workers.context, tiny.single, options_of(DecoderOutput::kTrain, DType::kF32, true), {&adapter},
                 1);
  const int64_t buffers = Buffer::num_created(), allocations = allocation_count.calls;
  for (int i = 0; i < 3; ++i) b.plan.run(tiny.workers.context, b.inputs);
  EXPECT_EQ(allocation_count.calls, allocations);
  EXPECT_EQ(Buffer::num_created(), buffers);
}

// Rows of several adapters in one batch are those of each adapter alone.
TEST(Decoder, AdaptersByRowRanges) {
  Tiny tiny(tiny_config("qwen2"));
  const AdapterWeights one = random_adapter(tiny.workers.context, tiny.single, lora_config(4, kAllSeven), 7);
  const AdapterWeights two = random_adapter(tiny.workers.context, tiny.single, lora_config(2, "q_proj,up_proj"), 8);
  const auto alone = [&](std::vector<const AdapterWeights*> adapters) {
    DecoderBench b(tiny.workers.context, tiny.single, options_of(DecoderOutput::kLogits), std::move(adapters));
    b.run();
    return b.logits();
  };
  const std::vector<float> first = alone({&one}), second = alone({&two});
  EXPECT_NE(first, second);
  DecoderOptions options = options_of(DecoderOutput::kLogits);
  options.adapter_rows = true;
  DecoderBench both(tiny.workers.context, tiny.single, options, {&one, &two});
  const std::vector<int32_t> rows = {0, 5, 10};  // the first sequence, then the other two
  both.plan.bind(both.graph.adapter_offsets, rows.data());
  both.run();
  const std::vector<float> mixed = both.logits();
  const auto boundary = static_cast<ptrdiff_t>(5 * 40);
  EXPECT_TRUE(std::equal(mixed.begin(), mixed.begin() + boundary, first.begin()));
  EXPECT_TRUE(std::equal(mixed.begin() + boundary, mixed.end(), second.begin() + boundary));
}

struct Published {
  int64_t hidden, layers, heads, kv_heads, intermediate, vocab;
  bool tied;
  int64_t parameters, without_embedding, qv, seven;
};

TEST(Decoder, ParameterCountsOfPublishedModels) {
  const Published models[] = {{896, 24, 14, 2, 4864, 151936, true, 494032768, 357898112, 540672, 4399104},
                              {1536, 28, 12, 2, 8960, 151936, true, 1543714304, 1310340608, 1089536, 9232384},
                              {2048, 36, 16, 2, 11008, 151936, true, 3085938688, 2774773760, 1843200, 14966784},
                              {3584, 28, 28, 4, 18944, 152064, false, 7615616512, 6525621760, 2523136, 20185088}};
  for (const Published& m : models) {
    Json json = tiny_config("qwen2", m.tied);
    json["hidden_size"] = m.hidden, json["num_hidden_layers"] = m.layers, json["num_attention_heads"] = m.heads;
    json["num_key_value_heads"] = m.kv_heads, json["intermediate_size"] = m.intermediate, json["vocab_size"] = m.vocab;
    json.erase("head_dim");
    json.erase("eos_token_id");
    const ModelConfig config = parse_model_config(json, "config.json");
    int64_t all = 0;
    for (const ExpectedTensor& t : family_of(config).tensors(config)) {
      all += t.shape[0] * (t.shape.size() == 2 ? t.shape[1] : 1);
    }
    EXPECT_EQ(all, m.parameters);
    EXPECT_EQ(all - m.vocab * m.hidden * (m.tied ? 1 : 2), m.without_embedding);
    const auto count = [&](const std::string& targets) {
      int64_t sum = 0;
      std::map<std::string, LinearModule> modules;
      for (const LinearModule& module : family_of(config).modules(config)) modules[module.path] = module;
      for (const auto& site : adapter_sites(lora_config(8, targets), config, "test", true).modules) {
        sum += site.rank * (modules.at(site.path).in_features + modules.at(site.path).out_features);
      }
      return sum;
    };
    EXPECT_EQ(count("q_proj,v_proj"), m.qv);
    EXPECT_EQ(count(kAllSeven), m.seven);
    EXPECT_EQ(count("all-linear"), m.seven);
  }
}

// Spec lora.md 2, item 5: the labels of the batch are learned by heart, and without the adapter nothing has changed.
TEST(Decoder, MemorisesSixteenSequences) {
  Json config = tiny_config("qwen2");
  config["hidden_size"] = 64, config["intermediate_size"] = 96;
  Tiny tiny(config);
  Workers one(1);
  Context& context = one.context;
  AdapterWeights adapter = AdapterWeights::create(context, tiny.single, lora_config(8, kAllSeven), "kaiming", 1);
  const RunSizes sizes = {.tokens = 16 * 8, .labels = 16 * 7, .sequences = 16, .max_length = 8};
  std::vector<int32_t> ids, positions, offsets = {0}, label_rows, labels;
  const RandomStream stream(9, 1);
  for (int32_t s = 0; s < 16; ++s) {
    for (int32_t t = 0; t < 8; ++t) {
      const auto row = static_cast<int32_t>(ids.size());
      // The first token names the sequence; the others are random.
      ids.push_back(t == 0 ? s : static_cast<int32_t>(stream.word(static_cast<uint64_t>(row)) % 40));
      positions.push_back(t);
      if (t > 0) label_rows.push_back(row - 1), labels.push_back(ids.back());
    }
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  const std::vector<double> weights(labels.size(), 1.0 / static_cast<double>(labels.size()));
  const RopeTable rope = tiny.single.rope_table(8);
  double loss = 0;
  const auto compile = [&](DecoderGraph& graph, Plan& plan, const AdapterWeights* with, DecoderOutput output) {
    DecoderOptions options = options_of(output, DType::kF32, with != nullptr);
    if (with != nullptr) options.adapters = {with->sites};
    graph = tiny.single.family().build(tiny.single.config(), options);
    PlanOptions p;
    p.capacity = sizes, p.num_threads = context.num_threads();
    plan = Plan::compile(graph.graph, p);
    plan.prepare(context);
    tiny.single.bind(plan, graph);
    if (with != nullptr) with->bind(plan, graph);
    plan.bind(graph.ids, ids.data()), plan.bind(graph.positions, positions.data()),
        plan.bind(graph.sequence_offsets, offsets.data());
    plan.bind(graph.label_rows, label_rows.data()), plan.bind(graph.labels, labels.data()),
        plan.bind(graph.label_weights, weights.data());
    plan.bind(graph.loss, &loss);
  };
  RunInputs inputs;
  inputs.sizes = sizes, inputs.rope = &rope;
  DecoderGraph base_graph, graph;
  Plan base_plan, plan;
  compile(base_graph, base_plan, nullptr, DecoderOutput::kLoss);
  base_plan.run(context, inputs);
  const double before = loss;
  compile(graph, plan, &adapter, DecoderOutput::kTrain);
  struct State {
    std::vector<float> gradient, m, v;
    std::span<float> value;
  };
  std::map<std::string, State> states;
  for (const auto& [name, value] : graph.adapter_parameters[0]) {
    State& s = states[name];
    s.value = adapter.tensors.at(name).values().first(static_cast<size_t>(graph.graph.shape(value).elements(sizes)));
    s.gradient.resize(s.value.size()), s.m.resize(s.value.size()), s.v.resize(s.value.size());
    plan.bind(graph.graph.info(value).gradient, s.gradient.data());
  }
  int steps = 0;
  for (loss = 1; loss >= 0.05 && steps < 300;) {
    for (auto& [name, s] : states) std::fill(s.gradient.begin(), s.gradient.end(), 0.0f);
    plan.run(context, inputs);
    AdamWStep step;
    step.lr = 1e-2, step.weight_decay = 0, step.t = ++steps;
    for (auto& [name, s] : states) adamw<float>(context, step, s.gradient, s.value, s.m, s.v);
  }
  EXPECT_LT(loss, 0.05) << "after " << steps << " steps, from " << before;
  RecordProperty("steps", steps);
  base_plan.run(context, inputs);
  EXPECT_EQ(loss, before);
}

}  // namespace
}  // namespace graft
