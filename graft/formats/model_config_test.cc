#include "graft/formats/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

Json tiny() { return read_json("tests/data/tiny/config.json"); }

std::string error_of(const Json& json) {
  test::CapturedLog quiet;
  try {
    parse_model_config(json, "config.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ModelConfig, ReadsWhatTheFileSays) {
  const ModelConfig config = load_model_config("tests/data/tiny");
  EXPECT_EQ(config.model_type, "qwen2");
  EXPECT_EQ(config.hidden_size, 16);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.num_key_value_heads, 1);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rope_scaling.type, "default");
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.layer_windows, (std::vector<int64_t>{0}));  // use_sliding_window is false
  EXPECT_EQ(config.torch_dtype, DType::kBF16);
  EXPECT_EQ(config.raw, tiny());
  const GenerationConfig generation = load_generation_config("tests/data/tiny");
  EXPECT_EQ(stop_token_ids(config, generation), (std::vector<int64_t>{274, 272}));
  EXPECT_EQ(stop_token_ids(config, {}), (std::vector<int64_t>{274}));
  EXPECT_EQ(generation.top_k, 20);
  EXPECT_TRUE(load_generation_config("tests/data/tiny_adapter").eos_token_ids.empty());
}

TEST(ModelConfig, NamesEveryFaultAtOnce) {
  Json json = tiny();
  json["hidden_size"] = "16";
  json["num_hidden_layers"] = 1.5;
  json["vocab_size"] = 36893488147419103232.0;
  json["num_attention_heads"] = 4;
  json["num_key_value_heads"] = 3;
  json["rms_norm_eps"] = -1.0;
  json["hidden_act"] = "snake";
  json["rope_theta"] = 0;
  json["intermediate_size"] = nullptr;
  json["quantization_config"] = {{"quant_method", "gptq"}};
  json["tie_word_embeddings"] = 1;
  json["eos_token_id"] = Json::array({1, "two"});
  const std::string error = error_of(json);
  for (const char* words :
       {"faults", "hidden_size is the string '16'", "num_hidden_layers is the number 1.5", "vocab_size is",
        "num_key_value_heads is 3", "rms_norm_eps is the number -1.0, expected a number > 0", "hidden_act is 'snake'",
        "rope_theta", "intermediate_size is missing", "gptq", "tie_word_embeddings", "eos_token_id holds the string"}) {
    EXPECT_NE(error.find(words), std::string::npos) << words << "\n" << error;
  }
}

TEST(ModelConfig, AFaultBringsNoOthers) {
  Json json = tiny();
  json.erase("head_dim");
  json["hidden_size"] = 0;
  EXPECT_EQ(error_of(json).find("num_attention_heads"), std::string::npos) << error_of(json);
  json = tiny();
  json["vocab_size"] = int64_t{1} << 40;
  EXPECT_NE(error_of(json).find("vocab_size"), std::string::npos);
  const test::CapturedLog log;
  EXPECT_THROW(parse_model_config(json, "config.json"), Error);
  EXPECT_EQ(log.text().find("outside the vocabulary"), std::string::npos) << log.text();
}

TEST(ModelConfig, RefusesUnknownFamiliesWithTheList) {
  Json json = tiny();
  json["model_type"] = "blimp2";
  EXPECT_NE(error_of(json).find("'blimp2'"), std::string::npos);
  EXPECT_NE(error_of(json).find("mixtral"), std::string::npos);
  json["model_type"] = "llama";
  EXPECT_NE(error_of(json).find("architectures says Qwen2ForCausalLM"), std::string::npos);
  json.erase("model_type");
  EXPECT_EQ(error_of(json), "");  // the architecture tells the family
  static constexpr std::string_view kOnly[] = {"llama"};
  EXPECT_THROW(parse_model_config(tiny(), "config.json", kOnly), Error);
}

TEST(ModelConfig, DefaultsFollowTheFamilyAndAreSaid) {
  for (const auto& [type, theta] :
       {std::pair{"qwen2", 1e6}, {"qwen3", 1e6}, {"llama", 1e4}, {"mistral", 1e4}, {"mixtral", 1e6}}) {
    Json json = tiny();
    json["model_type"] = type;
    for (const char* key : {"architectures", "rope_theta", "head_dim", "max_position_embeddings", "sliding_window"}) {
      json.erase(key);
    }
    json["num_local_experts"] = 4;
    json["num_experts_per_tok"] = 2;
    test::CapturedLog log;
    const ModelConfig config = parse_model_config(json, "config.json");
    EXPECT_EQ(config.rope_theta, theta) << type;
    EXPECT_NE(log.text().find("rope_theta is missing"), std::string::npos) << type;
    EXPECT_EQ(config.head_dim, std::string(type) == "qwen3" ? 128 : 8) << type;
    EXPECT_EQ(config.layer_windows[0], std::string(type) == "mistral" ? 4096 : 0) << type;
    EXPECT_EQ(config.moe.has_value(), std::string(type) == "mixtral") << type;
    EXPECT_EQ(config.qk_norm, std::string(type) == "qwen3") << type;
  }
}

TEST(ModelConfig, ReadsEveryFormOfRopeScaling) {
  const auto read = [](Json changes) {
    Json json = tiny();
    json.erase("rope_theta");
    for (const auto& [key, value] : changes.items()) json[key] = value;
    test::CapturedLog quiet;
    return parse_model_config(json, "config.json");
  };
  ModelConfig c = read({{"rope_theta", 5000}, {"rope_scaling", {{"type", "linear"}, {"factor", 2}}}});
  EXPECT_EQ(c.rope_theta, 5000);
  EXPECT_EQ(c.rope_scaling.type, "linear");
  EXPECT_EQ(c.rope_scaling.factor, 2);
  c = read({{"rope_parameters",
             {{"rope_theta", 7e5},
              {"rope_type", "yarn"},
              {"factor", 4.0},
              {"original_max_position_embeddings", 64},
              {"mscale", 1.0},
              {"truncate", false}}}});
  EXPECT_EQ(c.rope_theta, 7e5);
  EXPECT_EQ(c.rope_scaling.original_max_position_embeddings, 64);
  EXPECT_EQ(c.rope_scaling.mscale, 1.0);
  EXPECT_FALSE(c.rope_scaling.mscale_all_dim.has_value());
  EXPECT_FALSE(c.rope_scaling.truncate);
  c = read({{"rope_parameters", {{"full_attention", {{"rope_theta", 3e4}, {"rope_type", "default"}}}}}});
  EXPECT_EQ(c.rope_theta, 3e4);
  c = read(
      {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}}}});
  EXPECT_EQ(c.rope_scaling.original_max_position_embeddings, 128);  // as transformers: max_position_embeddings
  c = read(
      {{"rope_scaling", {{"rope_type", "longrope"}, {"short_factor", {1, 1, 1, 1}}, {"long_factor", {2, 2, 2, 2}}}},
       {"original_max_position_embeddings", 32}});
  EXPECT_EQ(c.rope_scaling.factor, 4.0);  // 128 / 32
  EXPECT_EQ(c.rope_scaling.long_factor.size(), 4u);

  const auto refuse = [](Json scaling) {
    Json json = tiny();
    json["rope_scaling"] = std::move(scaling);
    return error_of(json);
  };
  EXPECT_NE(refuse({{"rope_type", "spiral"}, {"factor", 2}}).find("spiral"), std::string::npos);
  EXPECT_NE(refuse({{"rope_type", "linear"}}).find("rope_scaling.factor is missing"), std::string::npos);
  EXPECT_NE(refuse({{"rope_type", "linear"}, {"factor", 0}}).find("rope_scaling.factor"), std::string::npos);
  EXPECT_NE(refuse({{"factor", 2}}).find("rope_scaling.type is missing"), std::string::npos);
  EXPECT_NE(refuse({{"rope_type", "llama3"},
                    {"factor", 8},
                    {"low_freq_factor", 4},
                    {"high_freq_factor", 4},
                    {"original_max_position_embeddings", 8}})
                .find("high_freq_factor"),
            std::string::npos);
  EXPECT_NE(refuse({{"rope_type", "longrope"},
                    {"short_factor", {1}},
                    {"long_factor", {1, 1, 1, -1}},
                    {"original_max_position_embeddings", 8}})
                .find("long_factor"),
            std::string::npos);
  EXPECT_NE(refuse("linear").find("expected an object"), std::string::npos);
}

TEST(ModelConfig, WindowsPerLayer) {
  Json json = tiny();
  json["num_hidden_layers"] = 4;
  json["use_sliding_window"] = true;
  json["max_window_layers"] = 3;
  EXPECT_EQ(parse_model_config(json, "c").layer_windows, (std::vector<int64_t>{0, 0, 0, 64}));
  json["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  EXPECT_EQ(parse_model_config(json, "c").layer_windows, (std::vector<int64_t>{64, 0, 64, 0}));
  json["layer_types"] = {"full_attention"};
  EXPECT_NE(error_of(json).find("layer_types has 1 entries"), std::string::npos);
  json["layer_types"] = {"linear_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_NE(error_of(json).find("linear_attention"), std::string::npos);
}

TEST(ModelConfig, MixturesOfExperts) {
  Json json = tiny();
  json.erase("architectures");
  json["model_type"] = "qwen3_moe";
  EXPECT_NE(error_of(json).find("moe_intermediate_size is missing"), std::string::npos);
  json["num_experts"] = 8, json["num_experts_per_tok"] = 9, json["moe_intermediate_size"] = 12;
  EXPECT_NE(error_of(json).find("num_experts_per_tok is 9"), std::string::npos);
  json["num_experts_per_tok"] = 2, json["num_hidden_layers"] = 4, json["mlp_only_layers"] = {1},
  json["decoder_sparse_step"] = 2;
  const ModelConfig config = parse_model_config(json, "c");
  EXPECT_EQ(config.moe->sparse_layers, (std::vector<bool>{false, false, false, true}));
  EXPECT_FALSE(config.moe->norm_topk_prob);
  json["mlp_only_layers"] = {7};
  EXPECT_NE(error_of(json).find("mlp_only_layers"), std::string::npos);
}

TEST(ModelConfig, ReadsEveryDecoderOfTheFixtures) {
  GRAFT_NEEDS_FIXTURES();
  for (const char* name : {"llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe", "pystd-5m"}) {
    const std::string folder = test::fixtures() + "/models/" + name;
    const ModelConfig config = load_model_config(folder);
    EXPECT_EQ(config.layer_windows.size(), static_cast<size_t>(config.num_hidden_layers));
    EXPECT_EQ(config.layer_windows[0], std::string(name) == "mistral" ? 12 : 0) << name;
    EXPECT_FALSE(stop_token_ids(config, load_generation_config(folder)).empty());
  }
  const ModelConfig llama = load_model_config(test::fixtures() + "/models/llama");
  EXPECT_EQ(llama.rope_scaling.type, "llama3");
  EXPECT_EQ(llama.rope_scaling.original_max_position_embeddings, 32);
  EXPECT_EQ(load_model_config(test::fixtures() + "/models/qwen3").rope_theta, 1e6);
  EXPECT_EQ(load_model_config(test::fixtures() + "/models/qwen3_moe").moe->sparse_layers,
            (std::vector<bool>{true, false, true}));
  EXPECT_THROW(load_model_config(test::fixtures() + "/models/bert"), Error);
}

TEST(ModelConfig, ReadsEveryFormOfTheRopeFixtures) {
  GRAFT_NEEDS_FIXTURES();
  const Json cases = read_json(test::fixtures() + "/golden/rope/rope.json").at("cases");
  for (const auto& [name, raw] : cases.items()) {
    Json json = tiny();
    json["head_dim"] = raw["head_dim"], json["rope_theta"] = raw["rope_theta"],
    json["rope_scaling"] = raw["rope_scaling"];
    json["max_position_embeddings"] = raw["max_position_embeddings"];
    EXPECT_EQ(error_of(json), "") << name;
  }
}

}  // namespace
}  // namespace graft
