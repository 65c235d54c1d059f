#include "graft/formats/model_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "graft/base/error.h"
#include "tests/support/bad_case.h"
#include "tests/support/cpu_seconds.h"

namespace graft {
namespace {

using test::TempDir;

// The tensors of a qwen2 of the hostile cases, as the model layer would list them.
std::vector<ExpectedTensor> qwen2_tensors(const ModelConfig& c) {
  std::vector<ExpectedTensor> list = {
      {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, "vocab_size, hidden_size"},
      {"model.norm.weight", {c.hidden_size}, "hidden_size"}};
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim, h = c.hidden_size,
                f = c.intermediate_size;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      list.push_back({layer + name, std::move(shape), ""});
    };
    add("input_layernorm.weight", {h}), add("post_attention_layernorm.weight", {h});
    add("self_attn.q_proj.weight", {q, h}), add("self_attn.k_proj.weight", {kv, h}),
        add("self_attn.v_proj.weight", {kv, h});
    add("self_attn.q_proj.bias", {q}), add("self_attn.k_proj.bias", {kv}), add("self_attn.v_proj.bias", {kv});
    add("self_attn.o_proj.weight", {h, q});
    add("mlp.gate_proj.weight", {f, h}), add("mlp.up_proj.weight", {f, h}), add("mlp.down_proj.weight", {h, f});
  }
  if (!c.tie_word_embeddings) list.push_back({"lm_head.weight", {c.vocab_size, h}, "vocab_size, hidden_size"});
  return list;
}

TEST(ModelFolder, OpensAndChecks) {
  const ModelFolder model = ModelFolder::open("tests/data/tiny");
  model.tensors.check(qwen2_tensors(model.config));
  EXPECT_TRUE(model.tensors.unexpected(qwen2_tensors(model.config)).empty());
  int64_t parameters = 0;
  for (const ExpectedTensor& t : qwen2_tensors(model.config)) parameters += num_elements(t.shape);
  EXPECT_EQ(model.tensors.num_parameters(), parameters);
  EXPECT_EQ(model.tensors.read_f32("model.norm.weight").size(), 16u);
  EXPECT_EQ(model.tensors.find("nothing"), nullptr);
  EXPECT_THROW(model.tensors.at("nothing"), Error);
  std::vector<std::thread> threads;  // mapping on first use is safe
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { model.tensors.bytes(model.tensors.tensors()[0]); });
  for (std::thread& thread : threads) thread.join();
}

TEST(ModelFolder, ReportsAllMissingAndMisshapenTensorsTogether) {
  const ModelFolder model = ModelFolder::open("tests/data/tiny");
  std::vector<ExpectedTensor> expected = qwen2_tensors(model.config);
  expected[0].shape = {300, 16};
  expected.push_back({"model.layers.7.x", {3}, ""});
  expected.push_back({"optional", {3}, "", true});
  try {
    model.tensors.check(expected);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()),
              "tests/data/tiny/model.safetensors: 2 faults\n"
              "  tensor 'model.embed_tokens.weight' has shape [288, 16], config.json implies [300, 16] = [vocab_size, "
              "hidden_size]\n"
              "  tensor 'model.layers.7.x' [3] is missing, and config.json implies it");
  }
}

TEST(ModelFolder, WritesShardsThatReadBack) {
  const ModelFolder model = ModelFolder::open("tests/data/tiny");
  std::vector<TensorToWrite> tensors;
  for (const TensorInfo& info : model.tensors.tensors()) tensors.push_back({info.name, info.dtype, info.shape, {}});
  for (const uint64_t shard_bytes : {uint64_t{0}, uint64_t{1000}, uint64_t{1}, uint64_t{1} << 40}) {
    const TempDir folder;
    ModelWriter writer(folder.path(), tensors, shard_bytes);
    for (const TensorInfo& info : writer.tensors()) {
      writer.write(info.name, model.tensors.bytes(model.tensors.at(info.name)));
    }
    writer.commit();
    const TensorFolder copy(folder.path());
    EXPECT_EQ(copy.files().size() == 1, shard_bytes == 0 || shard_bytes > 100000);
    if (shard_bytes == 1) {
      EXPECT_EQ(copy.files().size(), tensors.size());
    }
    EXPECT_EQ(copy.num_parameters(), model.tensors.num_parameters());
    for (const TensorInfo& info : model.tensors.tensors()) {
      ASSERT_EQ(copy.at(info.name).shape, info.shape);
      ASSERT_EQ(copy.read_f32(info.name), model.tensors.read_f32(info.name)) << info.name;
    }
  }
}

TEST(ModelFolder, CopiesWhatBelongsToAModelAndNoWeights) {
  const TempDir from, to;
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "merges.txt",
        "chat_template.jinja", "LICENSE", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
        "adapter_config.json", "trainer_state.json", ".gitattributes", "README.md"}) {
    write_file(from / name, name);
  }
  EXPECT_EQ(copy_side_files(from.path(), to / "out"),
            (std::vector<std::string>{"LICENSE", "chat_template.jinja", "config.json", "generation_config.json",
                                      "merges.txt", "tokenizer.json", "tokenizer.model"}));
  EXPECT_EQ(read_file(to / "out/merges.txt"), "merges.txt");
  EXPECT_EQ(config_with_dtype({{"a", 1}, {"dtype", "bfloat16"}}, DType::kF32), (Json{{"a", 1}, {"dtype", "float32"}}));
  EXPECT_EQ(config_with_dtype({{"a", 1}}, DType::kF16), (Json{{"a", 1}, {"torch_dtype", "float16"}}));
}

TEST(ModelFolder, HostileFoldersGetTheirVerdict) {
  GRAFT_NEEDS_FIXTURES();
  int cases = 0;
  for (const test::BadCase& c : test::bad_cases("load model")) {
    test::expect_verdict(c, [&](const std::string& folder) {
      const ModelFolder model = ModelFolder::open(folder);
      model.tensors.check(qwen2_tensors(model.config));
      for (const TensorInfo& info : model.tensors.tensors()) {
        if (dtype_is_float(info.dtype)) model.tensors.read_f32(info.name);
      }
    });
    ++cases;
  }
  EXPECT_GE(cases, 90);
}

TEST(ModelFolder, OpensEveryFixtureFolder) {
  GRAFT_NEEDS_FIXTURES();
  for (const auto& entry : std::filesystem::directory_iterator(test::fixtures() + "/models")) {
    const TensorFolder tensors(entry.path().string());
    EXPECT_GT(tensors.num_parameters(), 10000) << entry.path();
  }
  EXPECT_EQ(TensorFolder(test::fixtures() + "/models/llama").files().size(), 3u);
}

TEST(ModelFolder, ThirtyGigabytesOpenAtOnce) {
  // Sparse files: headers of 3 shards of 10 GB; nothing but the headers may be read.
  const TempDir folder;
  Json map = Json::object();
  for (int shard = 0; shard < 3; ++shard) {
    Json header = Json::object();
    uint64_t at = 0;
    for (int i = 0; i < 300; ++i) {
      const std::string name = fmt::format("layers.{}.{}", shard, i);
      header[name] = {{"dtype", "BF16"}, {"shape", {4096, 4096}}, {"data_offsets", {at, at + 33554432}}};
      at += 33554432;
      map[name] = fmt::format("m{}.safetensors", shard);
    }
    const std::string json = header.dump();
    std::string head(8, '\0');
    for (size_t i = 0; i < 8; ++i) head[i] = static_cast<char>(json.size() >> (8 * i));
    const std::string path = folder / fmt::format("m{}.safetensors", shard);
    write_file(path, head + json);
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(8 + json.size() + at)), 0);
  }
  write_file(folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  const double start = test::cpu_seconds();
  const TensorFolder tensors(folder.path());
  EXPECT_LT(test::cpu_seconds() - start, 1);
  EXPECT_EQ(tensors.num_parameters(), 900ll * 4096 * 4096);
}

}  // namespace
}  // namespace graft
