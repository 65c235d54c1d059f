// Models with experts: sizes, layouts on disk, adapters, and that one expert of one is a dense model.
#include "graft/base/allocations.h"
#include "graft/formats/safetensors.h"
#include "graft/models/merge.h"
#include "graft/models/test_support.h"

namespace graft {
namespace {

using test::DecoderBench;
using test::load_model;
using test::logits_of;
using test::lora_config;
using test::random_adapter;
using test::TempDir;
using test::tiny_config;
using test::Workers;
using test::write_tiny_model;

// Every expert, the attention and the router, whatever the family calls them.
const std::string kEverything = ".*(_proj|w[123]|mlp\\.gate|moe\\.gate)";

DecoderOptions train_options() {
  DecoderOptions options;
  options.output = DecoderOutput::kTrain, options.head_chunk_rows = 3;
  return options;
}

// moe.md, section 1.
TEST(Experts, ParameterCountsOfTheThreeSizes) {
  struct Size {
    int64_t hidden, layers, heads, head_dim, experts, top_k, width, vocab, untied, tied;
  };
  for (const Size& s :
       {Size{64, 2, 4, 16, 4, 2, 256, 1000, 542528, 478528}, Size{256, 2, 4, 64, 4, 2, 1024, 1000, 7134464, 6878464},
        Size{768, 30, 12, 64, 16, 4, 6144, 32000, 6882678528, 6858102528}}) {
    for (const bool tied : {false, true}) {
      Json json = {{"model_type", "graft_moe"},      {"vocab_size", s.vocab},         {"hidden_size", s.hidden},
                   {"intermediate_size", s.width},   {"num_hidden_layers", s.layers}, {"num_attention_heads", s.heads},
                   {"num_key_value_heads", 1},       {"head_dim", s.head_dim},        {"num_local_experts", s.experts},
                   {"num_experts_per_tok", s.top_k}, {"tie_word_embeddings", tied}};
      const ModelConfig config = parse_model_config(json, "config.json");
      int64_t all = 0;
      for (const ExpectedTensor& t : family_of(config).tensors(config)) {
        all += t.shape[0] * (t.shape.size() == 2 ? t.shape[1] : 1);
      }
      EXPECT_EQ(all, tied ? s.tied : s.untied);
    }
  }
}

TEST(Experts, AllLinearIsAttentionAndEveryExpert) {
  const TempDir dir;
  write_tiny_model(dir.path(), tiny_config("qwen2_moe"));
  const ModelConfig config = load_model_config(dir.path());
  const auto targets = adapter_sites(lora_config(2, "all-linear"), config, "test", true).modules;
  // Two layers of q, k, v, o, five experts of three and the shared one of three; no router, no gate of the shared expert, no head.
  EXPECT_EQ(targets.size(), 2u * (4 + 15 + 3));
  for (const AdapterSites::Module& m : targets) EXPECT_TRUE(m.path.ends_with("_proj")) << m.path;
  EXPECT_EQ(adapter_sites(lora_config(2, "mlp.gate"), config, "test", true).modules.size(), 2u);
}

// The layout that transformers 5 holds in memory.
TEST(Experts, StackedTensorsAreTheSameModel) {
  for (const std::string family : {"mixtral", "qwen3_moe"}) {
    const TempDir dir;
    write_tiny_model(dir / "each", tiny_config(family), DType::kBF16);
    const ModelFolder each = ModelFolder::open(dir / "each", supported_model_types());
    const ExpertNames names = expert_names(each.config);
    const int64_t experts = each.config.moe->num_experts, width = each.config.moe->moe_intermediate_size;
    std::map<std::string, std::vector<std::byte>> bytes;
    std::vector<TensorToWrite> tensors;
    for (const TensorInfo& info : each.tensors.tensors()) {
      const auto data = each.tensors.bytes(info);
      std::string name = info.name;
      const size_t at = name.find("." + names.block + ".");
      const bool expert = name.find(".experts.") != std::string::npos;
      if (at != std::string::npos) name = name.substr(0, at) + ".mlp." + name.substr(at + names.block.size() + 2);
      if (!expert) {
        tensors.push_back({name, info.dtype, info.shape, {}});
        bytes[name] = {data.begin(), data.end()};
      } else if (name.find(".experts.0." + names.gate) != std::string::npos) {
        const std::string layer = info.name.substr(0, at) + ".", stacked = layer + "mlp.experts.";
        tensors.push_back({stacked + "gate_up_proj", info.dtype, {experts, 2 * width, 24}, {}});
        tensors.push_back({stacked + "down_proj", info.dtype, {experts, 24, width}, {}});
        for (int64_t e = 0; e < experts; ++e) {
          for (const std::string& role : {names.gate, names.up, names.down}) {
            const auto part = each.tensors.bytes(
                each.tensors.at(fmt::format("{}{}.experts.{}.{}.weight", layer, names.block, e, role)));
            auto& to = bytes[stacked + (role == names.down ? "down_proj" : "gate_up_proj")];
            to.insert(to.end(), part.begin(), part.end());
          }
        }
      }
    }
    std::filesystem::create_directories(dir / "stacked");
    write_file(dir / "stacked/config.json", each.config.raw.dump());
    ModelWriter writer(dir / "stacked", tensors);
    for (const TensorInfo& info : writer.tensors()) writer.write(info.name, bytes.at(info.name));
    writer.commit();
    Workers workers;
    EXPECT_EQ(logits_of(workers.context, load_model(workers.context, dir / "stacked")),
              logits_of(workers.context, load_model(workers.context, dir / "each")))
        << family;

    Json other = each.config.raw;
    other[family == "mixtral" ? "num_local_experts" : "num_experts"] = experts + 1;
    write_file(dir / "stacked/config.json", other.dump());
    try {
      ModelFolder::open(dir / "stacked", supported_model_types());
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("gate_up_proj"), std::string::npos) << e.what();
    }
  }
}

// moe.md, section 5: every bit of loss and gradients, but for the sign of zeros.
TEST(Experts, OneExpertOfOneIsTheDenseModel) {
  const TempDir dir;
  Json moe = tiny_config("graft_moe", false);
  for (const char* key : {"shared_expert_intermediate_size", "rope_interleaved"}) moe.erase(key);
  moe["num_local_experts"] = 1, moe["num_experts_per_tok"] = 1;
  write_tiny_model(dir / "moe", moe);
  const ModelFolder source = ModelFolder::open(dir / "moe", supported_model_types());
  std::filesystem::create_directories(dir / "dense");
  write_file(dir / "dense/config.json", tiny_config("llama", false).dump());
  const auto dense_name = [](std::string name) {
    const size_t at = name.find("experts.0.");
    return at == std::string::npos ? name : name.erase(at, 10);
  };
  std::vector<TensorToWrite> tensors;
  std::map<std::string, std::span<const std::byte>> bytes;
  for (const TensorInfo& info : source.tensors.tensors()) {
    if (info.name.ends_with("mlp.gate.weight")) continue;
    tensors.push_back({dense_name(info.name), info.dtype, info.shape, {}});
    bytes[dense_name(info.name)] = source.tensors.bytes(info);
  }
  ModelWriter writer(dir / "dense", tensors);
  for (const TensorInfo& info : writer.tensors()) writer.write(info.name, bytes.at(info.name));
  writer.commit();
  Workers workers;
  const Model sparse = load_model(workers.context, dir / "moe"), dense = load_model(workers.context, dir / "dense");
  DecoderOptions options = train_options();
  options.train_base = true;
  DecoderBench want(workers.context, dense, options);
  const double loss = want.run();
  options.aux_coef = 0.01;  // constant with one expert: no gradient
  DecoderBench got(workers.context, sparse, options);
  EXPECT_DOUBLE_EQ(got.run(), loss + 2 * 0.01);
  const auto gradients = want.gradients();
  size_t compared = 0;
  for (const auto& [name, gradient] : got.gradients()) {
    if (name.ends_with("mlp.gate.weight")) {
      EXPECT_EQ(gradient, std::vector<double>(gradient.size())) << name;
    } else {
      EXPECT_EQ(gradient, gradients.at(dense_name(name))) << name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, gradients.size());
}

TEST(Experts, RecomputeGivesTheSameBitsAndNothingIsAllocated) {
  const TempDir dir;
  Json config = tiny_config("graft_moe");
  config["num_hidden_layers"] = 4;
  write_tiny_model(dir.path(), config);
  Workers workers;
  const Model model = load_model(workers.context, dir.path());
  const AdapterWeights adapter = random_adapter(workers.context, model, lora_config(3, kEverything), 7);
  DecoderOptions options = train_options();
  options.train_adapter = true, options.aux_coef = 0.1, options.z_coef = 0.01;
  DecoderBench plain(workers.context, model, options, {&adapter});
  const double loss = plain.run();
  for (const int every : {1, 2}) {
    DecoderBench b(workers.context, model, options, {&adapter}, every);
    EXPECT_EQ(b.run(), loss) << every;
    EXPECT_EQ(b.gradients(), plain.gradients()) << every;
    EXPECT_LT(b.plan.arena_bytes(), plain.plan.arena_bytes()) << every;
    const int64_t buffers = Buffer::num_created(), allocations = allocation_count.calls;
    for (int i = 0; i < 3; ++i) b.plan.run(workers.context, b.inputs);
    EXPECT_EQ(allocation_count.calls, allocations);
    EXPECT_EQ(Buffer::num_created(), buffers);
  }
}

TEST(Experts, MergedAndUnmergedAgree) {
  for (const std::string family : {"mixtral", "qwen2_moe", "qwen3_moe", "graft_moe"}) {
    const TempDir dir;
    write_tiny_model(dir / "base", tiny_config(family));
    Workers workers;
    const Model model = load_model(workers.context, dir / "base");
    AdapterWeights adapter = random_adapter(workers.context, model, lora_config(3, kEverything, 1), 7);
    adapter.save(dir / "adapter");
    MergeConfig config;
    config.model = dir / "base", config.adapters = {{dir / "adapter", 1.0}}, config.out = dir / "merged";
    EXPECT_EQ(static_cast<size_t>(merge(workers.context, config).num_merged), adapter.sites.modules.size());
    const Model merged = load_model(workers.context, dir / "merged");
    const AdapterWeights read = AdapterWeights::load(workers.context, model, dir / "adapter");
    const std::vector<float> a = logits_of(workers.context, model, &read), b = logits_of(workers.context, merged);
    EXPECT_EQ(a, logits_of(workers.context, model, &adapter)) << family;
    EXPECT_NE(b, logits_of(workers.context, model)) << family;
    // Logits of order one; the bar of merged against unmerged in fixtures/README.md.
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 3e-5) << family << " " << i;
  }
}

TEST(Experts, WhatAdaptersCannotDoIsSaid) {
  const TempDir dir;
  write_tiny_model(dir.path(), tiny_config("mixtral"));
  Workers workers;
  const Model model = load_model(workers.context, dir.path());
  const auto message = [&](DecoderOptions options, bool dora) -> std::string {
    LoraConfig config = lora_config(2, "w1");
    config.use_dora = dora;
    const AdapterWeights adapter = random_adapter(workers.context, model, config, 7);
    options.adapters = {adapter.sites};
    try {
      model.family().build(model.config(), options);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({}, false), "");
  EXPECT_NE(message({}, true).find("DoRA on experts"), std::string::npos);
  DecoderOptions dropout;
  dropout.dropout = 0.1;
  EXPECT_NE(message(dropout, false).find("dropout on experts"), std::string::npos);
}

}  // namespace
}  // namespace graft
