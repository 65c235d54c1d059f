#include "graft/formats/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "graft/base/error.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

using test::TempDir;

// The modules of a decoder, as the model layer would list them.
std::vector<BaseModule> modules_of(const ModelConfig& c) {
  std::vector<BaseModule> list = {{"model.embed_tokens", ModuleKind::kEmbedding, c.vocab_size, c.hidden_size}};
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim, h = c.hidden_size,
                f = c.intermediate_size;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    list.push_back({layer + "self_attn.q_proj", ModuleKind::kLinear, h, q});
    list.push_back({layer + "self_attn.k_proj", ModuleKind::kLinear, h, kv});
    list.push_back({layer + "self_attn.v_proj", ModuleKind::kLinear, h, kv});
    list.push_back({layer + "self_attn.o_proj", ModuleKind::kLinear, q, h});
    list.push_back({layer + "mlp.gate_proj", ModuleKind::kLinear, h, f});
    list.push_back({layer + "mlp.up_proj", ModuleKind::kLinear, h, f});
    list.push_back({layer + "mlp.down_proj", ModuleKind::kLinear, f, h});
  }
  list.push_back({"lm_head", ModuleKind::kHead, h, c.vocab_size});
  return list;
}
std::vector<BaseModule> tiny_modules() { return modules_of(load_model_config("tests/data/tiny")); }

std::string error_of(const LoraConfig& config, bool training = true) {
  try {
    resolve_targets(config, tiny_modules(), "LoRA config", training);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::vector<std::string> chosen(const LoraConfig& config, std::span<const BaseModule> modules) {
  std::vector<std::string> names;
  for (const LoraTarget& target : resolve_targets(config, modules)) names.push_back(target.module.path);
  return names;
}

TEST(LoraConfig, ScalingPatternsAndLayers) {
  std::vector<BaseModule> modules;
  for (int i : {0, 1, 10}) {
    for (const char* name : {"self_attn.q_proj", "mlp.experts.3.down_proj"}) {
      modules.push_back({fmt::format("model.layers.{}.{}", i, name), ModuleKind::kLinear, 64, 64});
    }
  }
  modules.push_back({"lm_head", ModuleKind::kHead, 64, 64});
  LoraConfig config;
  config.rank = 4, config.alpha = 8;
  config.target_modules.names = {"q_proj", "down_proj"};
  config.rank_pattern = {{"layers.1.self_attn.q_proj", 16}, {"q_proj", 2}};
  config.alpha_pattern = {{R"(layers\.\d+\.mlp\..*)", 1}};
  const auto targets = resolve_targets(config, modules);
  ASSERT_EQ(targets.size(), 6u);
  EXPECT_EQ(targets[0].rank, 2);
  EXPECT_EQ(targets[0].scaling, 4.0);
  EXPECT_EQ(targets[2].rank, 16);  // the first key that matches
  EXPECT_EQ(targets[1].alpha, 1);
  EXPECT_EQ(targets[1].scaling, 0.25);
  EXPECT_EQ(targets[4].rank, 2);  // layers.10 is not layers.1
  config.use_rslora = true;
  EXPECT_EQ(resolve_targets(config, modules)[2].scaling, 2.0);
  config.rank_pattern.clear(), config.alpha_pattern.clear();
  config.layers_to_transform = {10};
  EXPECT_EQ(chosen(config, modules), (std::vector<std::string>{modules[4].path, modules[5].path}));
  config.layers_pattern = {"experts"};
  config.layers_to_transform = {3};
  EXPECT_EQ(chosen(config, modules), (std::vector<std::string>{modules[1].path, modules[3].path, modules[5].path}));
  config = {};
  config.target_modules.all_linear = true;
  EXPECT_EQ(chosen(config, modules).size(), 6u);  // never the head
  config.exclude_modules.names = {"q_proj"};
  EXPECT_EQ(chosen(config, modules).size(), 3u);
  config.exclude_modules = {};
  config.modules_to_save = {"down_proj"};
  EXPECT_EQ(chosen(config, modules).size(), 3u);
  config = {};
  config.target_modules = parse_module_pattern("*_proj");
  EXPECT_EQ(chosen(config, modules).size(), 6u);
  config.target_modules = parse_module_pattern(".*\\.1\\..*q_proj");
  EXPECT_EQ(chosen(config, modules), (std::vector<std::string>{modules[2].path}));
  config.target_modules = parse_module_pattern("q_proj,lm_head");
  EXPECT_EQ(chosen(config, modules).size(), 4u);
}

TEST(LoraConfig, FaultsNameTheCloseOnes) {
  LoraConfig config;
  config.target_modules.names = {"qq_proj", "wte", "v_proj"};
  config.layers_to_transform = {0, 5};
  config.rank = 9;
  const std::string error = error_of(config);
  for (const char* words :
       {"'qq_proj' is not in the model; did you mean", "q_proj", "'wte' is not in the model; the model has", "layer 5",
        "rank 9 of 'model.layers.0.self_attn.v_proj' is more than min(in 16, out 8)"}) {
    EXPECT_NE(error.find(words), std::string::npos) << words << "\n" << error;
  }
  config = {};
  config.target_modules.names = {"q_proj"};
  config.rank_pattern = {{"k_proj", 2}};
  EXPECT_NE(error_of(config).find("rank_pattern: 'k_proj' matches no target"), std::string::npos);
  EXPECT_EQ(error_of(config, false), "");
  config = {};  // a file made elsewhere: what is not there is passed over while something is left, as by PEFT
  config.target_modules.names = {"q_proj", "c_attn"};
  config.layers_to_transform = {0, 5};
  EXPECT_EQ(error_of(config, false), "");
  EXPECT_NE(error_of(config).find("2 faults"), std::string::npos);
  config.layers_to_transform = {5};
  EXPECT_NE(error_of(config, false).find("layer 5 is not in the model"), std::string::npos);
  config = {};
  config.target_modules.regex = ".*nothing";
  EXPECT_NE(error_of(config).find("matches no module"), std::string::npos);
  config.target_modules.regex = "(a+)+$";
  config.rank = 0, config.alpha = NAN, config.dropout = 1, config.rank_pattern = {{"(", 0}};
  EXPECT_NE(error_of(config).find("5 faults"), std::string::npos) << error_of(config);
  config = {};
  config.target_modules.regex = "((((.*)*)*)*)*nothing_X?";
  EXPECT_NE(error_of(config).find("takes too long"), std::string::npos);
}

TEST(LoraConfig, ReadsWhatItWrites) {
  LoraConfig config;
  config.rank = 16, config.alpha = 7.5, config.dropout = 0.1, config.use_rslora = true, config.use_dora = true;
  config.target_modules.names = {"q_proj", "v_proj"};
  config.exclude_modules.regex = ".*1.*";
  config.rank_pattern = {{"z", 3}, {"a", 4}};
  config.alpha_pattern = {{"q_proj", 24}};
  config.layers_to_transform = {0, 2};
  config.layers_pattern = {"layers"};
  config.modules_to_save = {"lm_head"};
  config.base_model_name_or_path = "base";
  const Json json = lora_config_json(config);
  const LoraConfig back = parse_lora_config(json, "adapter_config.json");
  EXPECT_EQ(lora_config_json(back), json);
  EXPECT_EQ(back.rank_pattern, config.rank_pattern);  // order counts
  EXPECT_EQ(back.target_modules, config.target_modules);
  std::vector<std::string> keys, sorted;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(keys, sorted);
  const LoraConfig least = parse_lora_config({{"peft_type", "LORA"}, {"target_modules", "all-linear"}}, "c");
  EXPECT_EQ(least.rank, 8);
  EXPECT_EQ(least.alpha, 8);  // PEFT's default
  EXPECT_TRUE(least.target_modules.all_linear);
}

TEST(LoraConfig, RefusesWhatItCannotDoByName) {
  const auto refuse = [](Json changes) {
    Json json = {{"peft_type", "LORA"}, {"target_modules", {"q_proj"}}};
    for (const auto& [key, value] : changes.items()) json[key] = value;
    try {
      parse_lora_config(json, "c");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  for (const char* key : {"layer_replication", "trainable_token_indices", "target_parameters", "arrow_config"}) {
    EXPECT_NE(refuse({{key, {1, 2}}}).find(key), std::string::npos) << key;
    EXPECT_EQ(refuse({{key, nullptr}}), "");
  }
  EXPECT_EQ(refuse({{"target_parameters", Json::array()}, {"lora_bias", false}, {"loftq_config", Json::object()}}), "");
  EXPECT_NE(refuse({{"lora_bias", true}}).find("lora_bias"), std::string::npos);
  EXPECT_NE(refuse({{"init_lora_weights", "pissa_niter_4"}}).find("pissa"), std::string::npos);
  EXPECT_EQ(refuse({{"init_lora_weights", "gaussian"}}), "");
  for (const double alpha : {1e39, 1e300, 0.0, -1.0}) {  // an infinite or no scale
    EXPECT_NE(refuse({{"lora_alpha", alpha}}).find("lora_alpha is"), std::string::npos) << alpha;
    EXPECT_NE(refuse({{"alpha_pattern", {{"q_proj", alpha}}}}).find("alpha_pattern.q_proj is"), std::string::npos);
  }
  const std::string all =
      refuse({{"r", 0}, {"lora_alpha", "16"}, {"lora_dropout", 1.5}, {"bias", "all"}, {"rank_pattern", {{"q", -2}}}});
  for (const char* words : {"5 faults", "r is", "lora_alpha", "lora_dropout", "bias is 'all'", "rank_pattern.q"}) {
    EXPECT_NE(all.find(words), std::string::npos) << words << all;
  }
  EXPECT_NE(refuse({{"target_modules", ".*"}, {"layers_to_transform", {1}}}).find("layers_to_transform"),
            std::string::npos);
}

TEST(Adapter, LoadsAndRoundTrips) {
  const auto modules = tiny_modules();
  const Adapter adapter = load_adapter("tests/data/tiny_adapter", {.modules = modules});
  ASSERT_EQ(adapter.tensors.size(), 2u);
  EXPECT_EQ(adapter.tensors[0].module, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(adapter.tensors[0].rank, 4);
  EXPECT_EQ(adapter.tensors[0].scaling, 2.0);
  EXPECT_EQ(adapter.num_parameters(), 4 * (16 + 16) + 4 * (16 + 8));
  EXPECT_EQ(adapter.find("model.layers.0.self_attn.v_proj"), &adapter.tensors[1]);
  EXPECT_EQ(load_adapter("tests/data/tiny_adapter").tensors.size(), 2u);  // without a base
  const TempDir folder;
  write_adapter(folder / "out/adapter", adapter, "# An adapter\n");
  EXPECT_EQ(read_file(folder / "out/adapter/adapter_model.safetensors"),
            read_file("tests/data/tiny_adapter/adapter_model.safetensors"));
  EXPECT_EQ(read_file(folder / "out/adapter/README.md"), "# An adapter\n");
  const Adapter again = load_adapter(folder / "out/adapter", {.modules = modules});
  EXPECT_EQ(again.tensors[1].b, adapter.tensors[1].b);
}

TEST(Adapter, ReadsMlxAndLayersLayouts) {
  const auto modules = tiny_modules();
  const Adapter adapter = load_adapter("tests/data/tiny_adapter", {.modules = modules});
  // The same numbers as mlx-lm and metal-candle store them: transposed, and the scale as it is.
  std::vector<std::vector<float>> values;
  const auto transposed = [&](const std::vector<float>& x, int64_t rows, int64_t columns) {
    std::vector<float> y;
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = 0; i < rows; ++i) y.push_back(x[static_cast<size_t>(i * columns + j)]);
    }
    values.push_back(std::move(y));
    return as_bytes_of(values.back());
  };
  values.reserve(100);
  std::vector<TensorToWrite> mlx, layers;
  for (const AdapterTensor& t : adapter.tensors) {
    const std::string name = t.module.substr(t.module.rfind('.') + 1);
    mlx.push_back({t.module + ".lora_a", DType::kF32, {t.in, t.rank}, transposed(t.a, t.rank, t.in)});
    mlx.push_back({t.module + ".lora_b", DType::kF32, {t.rank, t.out}, transposed(t.b, t.out, t.rank)});
    layers.push_back({"layers.0." + name + ".lora_a", DType::kF32, {t.in, t.rank}, transposed(t.a, t.rank, t.in)});
    layers.push_back({"layers.0." + name + ".lora_b", DType::kF32, {t.rank, t.out}, transposed(t.b, t.out, t.rank)});
  }
  const TempDir folder;
  std::filesystem::create_directory(folder / "mlx");
  write_safetensors(folder / "mlx/adapters.safetensors", mlx);
  Json config = {{"fine_tune_type", "lora"},
                 {"num_layers", 1},
                 {"lora_parameters", {{"rank", 4}, {"scale", 20.0}, {"dropout", 0.0}}}};
  write_file(folder / "mlx/adapter_config.json", config.dump(4));
  for (const bool with_base : {true, false}) {
    const Adapter read = load_adapter(
        folder / "mlx", {.modules = with_base ? std::span<const BaseModule>(modules) : std::span<const BaseModule>()});
    ASSERT_EQ(read.tensors.size(), 2u);
    EXPECT_EQ(read.tensors[0].scaling, 20.0);
    EXPECT_EQ(read.config.alpha, 80.0);
    EXPECT_EQ(read.tensors[1].a, adapter.tensors[1].a);
    EXPECT_EQ(read.tensors[1].b, adapter.tensors[1].b);
    EXPECT_EQ(read.config.target_modules.names, (std::vector<std::string>{"q_proj", "v_proj"}));
    EXPECT_EQ(read.config.layers_to_transform, (std::vector<int64_t>{0}));
    write_adapter(folder / "as_peft", read);
    EXPECT_EQ(load_adapter(folder / "as_peft", {.modules = modules}).tensors[0].scaling, 20.0);
  }
  write_safetensors(folder / "bare.safetensors", layers);
  test::CapturedLog log;
  const Adapter bare = load_adapter(folder / "bare.safetensors", {.modules = modules});
  EXPECT_EQ(bare.tensors[0].module, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(bare.tensors[0].a, adapter.tensors[0].a);
  EXPECT_EQ(bare.tensors[0].scaling, 2.0);
  EXPECT_NE(log.text().find("scale is unknown"), std::string::npos);

  config["fine_tune_type"] = "full";
  write_file(folder / "mlx/adapter_config.json", config.dump());
  EXPECT_THROW(load_adapter(folder / "mlx"), Error);
}

TEST(Adapter, PartialTakesWhatFits) {
  const auto modules = tiny_modules();
  const SafetensorsFile file("tests/data/tiny_adapter/adapter_model.safetensors");
  std::vector<TensorToWrite> some;
  for (const TensorInfo& info : file.tensors()) {
    if (info.name.find("v_proj.lora_B") == std::string::npos) {
      some.push_back({info.name, info.dtype, info.shape, file.bytes(info)});
    }
  }
  const TempDir folder;
  write_safetensors(folder / "adapter_model.safetensors", some);
  write_file(folder / "adapter_config.json", read_file("tests/data/tiny_adapter/adapter_config.json"));
  EXPECT_THROW(load_adapter(folder.path(), {.modules = modules}), Error);
  test::CapturedLog log;
  const Adapter adapter = load_adapter(folder.path(), {.modules = modules, .partial = true});
  EXPECT_EQ(adapter.tensors.size(), 1u);
  EXPECT_NE(log.text().find("v_proj.lora_B.weight' is missing"), std::string::npos);
}

TEST(Adapter, NaturalOrder) {
  std::vector<std::string> names = {"layers.10.b", "layers.9.b", "layers.9.a", "layers.010.b", "a", "layers.9"};
  std::sort(names.begin(), names.end(), natural_less);
  EXPECT_EQ(names,
            (std::vector<std::string>{"a", "layers.9", "layers.9.a", "layers.9.b", "layers.010.b", "layers.10.b"}));
}

TEST(Adapter, HostileAdaptersGetTheirVerdict) {
  GRAFT_NEEDS_FIXTURES();
  const ModelFolder base = ModelFolder::open(test::fixtures() + "/data/bad/good/model");
  const auto modules = modules_of(base.config);
  int cases = 0;
  for (const test::BadCase& c : test::bad_cases("load adapter")) {
    test::expect_verdict(c, [&](const std::string& folder) { load_adapter(folder, {.modules = modules}); });
    ++cases;
  }
  EXPECT_GE(cases, 39);
}

TEST(Adapter, ReadsAndRewritesWhatPeftWrote) {
  GRAFT_NEEDS_FIXTURES();
  for (const auto& entry : std::filesystem::directory_iterator(test::fixtures() + "/peft")) {
    const Json meta = read_json(entry.path().string() + "/meta.json");
    const ModelFolder base = ModelFolder::open(test::fixtures() + "/" + meta["model"].get<std::string>());
    const auto modules = modules_of(base.config);
    std::vector<ExpectedTensor> tensors;
    for (const TensorInfo& info : base.tensors.tensors()) tensors.push_back({info.name, info.shape, ""});
    for (const char* which : {"adapter", "adapter_after"}) {
      const std::string folder = entry.path().string() + "/" + which;
      const Adapter adapter = load_adapter(folder, {.modules = modules, .base_tensors = tensors});
      EXPECT_EQ(adapter.num_parameters(), meta["trainable_parameters"].get<int64_t>()) << folder;
      const TempDir out;
      write_adapter(out / "a", adapter);
      EXPECT_EQ(read_file(out / "a/adapter_model.safetensors"), read_file(folder + "/adapter_model.safetensors"))
          << folder;
      const Json ours = read_json(out / "a/adapter_config.json"), theirs = read_json(folder + "/adapter_config.json");
      for (const auto& [key, value] : ours.items()) EXPECT_EQ(value, theirs.at(key)) << folder << " " << key;
    }
  }
  const Adapter dora = load_adapter(test::fixtures() + "/peft/dora/adapter");
  EXPECT_EQ(dora.tensors[0].magnitude.size(), static_cast<size_t>(dora.tensors[0].out));
  const Adapter saved = load_adapter(test::fixtures() + "/peft/layers_and_modules/adapter");
  ASSERT_EQ(saved.saved.size(), 1u);
  EXPECT_EQ(saved.saved[0].name, "lm_head.weight");
  EXPECT_EQ(load_adapter(test::fixtures() + "/peft/patterns/adapter").find("model.layers.0.self_attn.q_proj")->alpha,
            24);
}

}  // namespace
}  // namespace graft
