#include "graft/formats/inspect.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/adapter.h"
#include "graft/formats/checkpoint.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

using test::TempDir;

bool is_odd(const Json& out, std::string_view words) {
  for (const Json& line : out.at("odd")) {
    if (line.get_ref<const std::string&>().find(words) != std::string::npos) return true;
  }
  return false;
}

TEST(Inspect, Model) {
  const Json out = inspect_path("tests/data/tiny");
  EXPECT_EQ(out["kind"], "model");
  EXPECT_EQ(out["family"], "qwen2");
  EXPECT_EQ(out["parameters"], ModelFolder::open("tests/data/tiny").tensors.num_parameters());
  EXPECT_EQ(out["tensors"][0], (Json{{"name", "model.embed_tokens.weight"}, {"dtype", "BF16"}, {"shape", {288, 16}}}));
  EXPECT_EQ(out["config"]["head_dim"], 8);
  EXPECT_TRUE(is_odd(out, "tokenizer.json is missing"));
}

TEST(Inspect, AdapterCheckpointAndFile) {
  Json out = inspect_path("tests/data/tiny_adapter");
  EXPECT_EQ(out["kind"], "adapter");
  EXPECT_EQ(out["layout"], "peft");
  EXPECT_EQ(out["scale"], 2.0);
  EXPECT_EQ(out["targets"], (Json{"q_proj", "v_proj"}));
  EXPECT_EQ(out["parameters"], 224);
  EXPECT_EQ(out["modules"].size(), 2u);
  EXPECT_TRUE(out["odd"].empty()) << out["odd"];
  EXPECT_EQ(inspect_path("tests/data/tiny_adapter/adapter_model.safetensors")["kind"], "adapter");
  out = inspect_path("tests/data/tiny/model.safetensors");
  EXPECT_EQ(out["kind"], "safetensors");
  EXPECT_EQ(out["tensors"].size(), 14u);

  const TempDir folder;
  write_checkpoint(
      folder.path(), 40,
      [](const std::string& into) {
        write_adapter(into, load_adapter("tests/data/tiny_adapter"));
        write_safetensors(into + "/optimizer.safetensors", {});
      },
      Json::object(), Json::object());
  out = inspect_path(folder / "checkpoint-40");
  EXPECT_EQ(out["kind"], "checkpoint");
  EXPECT_EQ(out["holds"], "adapter");
  EXPECT_EQ(out["step"], 40);
  EXPECT_EQ(out["whole"], true);
  std::filesystem::remove(folder / "checkpoint-40/optimizer.safetensors");
  out = inspect_path(folder / "checkpoint-40");
  EXPECT_EQ(out["whole"], false);
  EXPECT_TRUE(is_odd(out, "optimizer.safetensors is missing"));
  write_adapter(folder.path(), load_adapter("tests/data/tiny_adapter"));
  EXPECT_EQ(inspect_path(folder.path())["checkpoints"], (Json{40}));

  EXPECT_THROW(inspect_path(folder / "nothing"), Error);
  EXPECT_THROW(inspect_path("tests"), Error);
}

TEST(Inspect, SaysWhatIsOdd) {
  const TempDir folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    write_file(folder / name, read_file(std::string("tests/data/tiny/") + name));
  }
  Json config = read_json("tests/data/tiny/config.json");
  config.erase("rope_theta"), config["torch_dtype"] = "float32", config["vocab_size"] = 300;
  write_file(folder / "config.json", config.dump());
  write_file(folder / "pytorch_model.bin", "x");
  write_file(folder / "other.safetensors", read_file("tests/data/tiny/model.safetensors"));
  Json out = inspect_path(folder.path());
  for (const char* words : {"rope_theta is missing, 1000000", "F32, none is", "the embedding has 288 rows",
                            "pytorch_model.bin", "other.safetensors", "generation_config.json is missing"}) {
    EXPECT_TRUE(is_odd(out, words)) << words << out["odd"];
  }
  config["hidden_act"] = "snake";
  write_file(folder / "config.json", config.dump());
  EXPECT_TRUE(is_odd(inspect_path(folder.path()), "snake"));  // faults are shown, not thrown

  const SafetensorsFile file("tests/data/tiny_adapter/adapter_model.safetensors");
  std::vector<TensorToWrite> some;
  for (const TensorInfo& info : file.tensors()) {
    if (info.name.find("lora_B") == std::string::npos) {
      some.push_back({info.name, info.dtype, info.shape, file.bytes(info)});
    }
  }
  const TempDir adapter;
  write_safetensors(adapter / "adapter_model.safetensors", some);
  Json settings = read_json("tests/data/tiny_adapter/adapter_config.json");
  settings["lora_alpha"] = 160;
  write_file(adapter / "adapter_config.json", settings.dump());
  out = inspect_path(adapter.path());
  EXPECT_TRUE(is_odd(out, "q_proj.lora_B.weight' is missing")) << out["odd"];
  EXPECT_TRUE(is_odd(out, "scale 40 is high")) << out["odd"];
}

TEST(Inspect, EveryFixture) {
  GRAFT_NEEDS_FIXTURES();
  for (const auto& entry : std::filesystem::directory_iterator(test::fixtures() + "/models")) {
    const Json out = inspect_path(entry.path().string());
    EXPECT_EQ(out["kind"], "model");
    EXPECT_FALSE(out["family"].get<std::string>().empty());
  }
  for (const auto& entry : std::filesystem::directory_iterator(test::fixtures() + "/peft")) {
    const Json out = inspect_path(entry.path().string() + "/adapter");
    EXPECT_EQ(out["kind"], "adapter");
    EXPECT_EQ(out["parameters"], read_json(entry.path().string() + "/meta.json")["trainable_parameters"]);
    EXPECT_FALSE(is_odd(out, "missing")) << out["odd"];
  }
}

}  // namespace
}  // namespace graft
