#include "graft/train/train_data.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/safetensors.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

const char kDataModel[] = "tests/data/tokenizer/qwen2";

class TrainDataTest : public testing::Test {
 protected:
  std::string rows(const std::string& name, int count, const std::string& more = {}) {
    std::string text;
    for (int i = 0; i < count; ++i) text += fmt::format("{{\"prompt\": \"row {}\", \"completion\": \" yes\"}}\n", i);
    write_file(folder_ / name, text + more);
    return folder_ / name;
  }
  TrainData load(TrainConfig config) {
    config.model = kDataModel;
    return load_train_data(config, model_, pool_);
  }
  std::string error_of(const TrainConfig& config) {
    try {
      load(config);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }
  test::TempDir folder_;
  ThreadPool pool_{2};
  ModelConfig model_ = [] {
    ModelConfig m;
    m.vocab_size = 2000;
    m.max_position_embeddings = 128;
    return m;
  }();
};

TEST_F(TrainDataTest, ValidationFromAFileAShareOrTheFolder) {
  TrainConfig c;
  c.data = rows("train.jsonl", 40);
  EXPECT_TRUE(load(c).valid.empty());
  c.valid = "10%";
  EXPECT_EQ(load(c).train.size(), 36);
  EXPECT_EQ(load(c).valid.size(), 4);
  c.valid = rows("other.jsonl", 3);
  EXPECT_EQ(load(c).train.size(), 40);
  EXPECT_EQ(load(c).valid.size(), 3);
  rows("valid.jsonl", 2);
  c.valid.clear();
  c.data = folder_.path();
  const TrainData data = load(c);
  EXPECT_EQ(data.valid.size(), 2);
  EXPECT_EQ(data.num_rows, 40);
  EXPECT_EQ(data.num_trained_tokens, data.train.num_trained_tokens());
  EXPECT_FALSE(data.chat);
}

TEST_F(TrainDataTest, FaultsOfBothFilesAreToldTogether) {
  TrainConfig c;
  c.data = rows("train.jsonl", 2, "{\"prompt\": 5}\n");
  c.valid = rows("v.jsonl", 1, "nonsense\n");
  const std::string text = error_of(c);
  EXPECT_NE(text.find("train.jsonl:3"), std::string::npos) << text;
  EXPECT_NE(text.find("v.jsonl:2"), std::string::npos) << text;
}

TEST_F(TrainDataTest, EarlyStopNeedsValidation) {
  TrainConfig c;
  c.data = rows("train.jsonl", 2);
  c.early_stop = 3;
  EXPECT_NE(error_of(c).find("early_stop is 3"), std::string::npos);
}

TEST_F(TrainDataTest, TheModelsLimitsHold) {
  TrainConfig c;
  c.data = rows("train.jsonl", 2);
  EXPECT_EQ(load(c).max_length, 128);
  EXPECT_EQ(load(c).previews.size(), 2u);
  c.max_length = 129;
  EXPECT_NE(error_of(c).find("max_length is 129, expected at most 128"), std::string::npos) << error_of(c);
  c.max_length = 0;
  model_.vocab_size = 1990;  // the end token is 1995
  EXPECT_NE(error_of(c), "");
}

TEST_F(TrainDataTest, PretokenisedDataNeedNoTokenizer) {
  const std::vector<int64_t> ids = {1, 2, 3, 4};
  write_safetensors(folder_ / "b.safetensors", {{"input_ids", DType::kI64, {1, 2, 2}, as_bytes_of(ids)},
                                                {"labels", DType::kI64, {1, 2, 2}, as_bytes_of(ids)}});
  TrainConfig c;
  c.data = folder_ / "b.safetensors";
  c.model = folder_ / "none";
  const TrainData data = load_train_data(c, model_, pool_);
  EXPECT_EQ(data.num_rows, 2);
  EXPECT_EQ(data.num_trained_tokens, 2);
  model_.max_position_embeddings = 1;
  EXPECT_THROW(load_train_data(c, model_, pool_), Error);
}

}  // namespace
}  // namespace graft
