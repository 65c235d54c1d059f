#include "graft/train/data_check.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/safetensors.h"
#include "graft/train/rows.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

const char kCheckModel[] = "tests/data/tokenizer/qwen2";

TEST(DataCheck, HostileData) {
  GRAFT_NEEDS_FIXTURES();
  const std::vector<test::BadCase> cases = test::bad_cases("read data");
  ASSERT_GT(cases.size(), 40u);
  ThreadPool pool(2);
  for (const test::BadCase& c : cases) {
    test::expect_verdict(c, [&](const std::string& folder) {
      const std::string bad = test::fixtures() + "/data/bad/";
      const std::string data =
          c.raw.contains("argument") ? bad + c.raw["argument"].get<std::string>() : folder + "/" + c.files.at(0);
      const DataCheck check =
          check_data(data, bad + c.raw["model"].get<std::string>(),
                     {.too_long = "report", .max_length = c.raw.value("max_length", int64_t{0})}, 1, pool);
      check.text(false);
      check.faults.throw_if_fatal(data);
      if (c.raw.contains("expect") && c.raw["expect"].contains("rows")) {
        EXPECT_EQ(check.files[0].num_rows, c.raw["expect"]["rows"].get<int64_t>()) << c.id;
      }
      if (c.raw.contains("expect") && c.raw["expect"].contains("values")) {
        const DataRows rows = read_data_rows(data);
        for (size_t i = 0; i < rows.rows.size(); ++i) {
          EXPECT_EQ(rows.rows[i].text, c.raw["expect"]["values"][i].get<std::string>()) << c.id;
        }
      }
      EXPECT_TRUE(c.verdict != "ok" || check.faults.num_warnings == 0) << c.id;
    });
  }
}

TEST(DataCheck, EveryFormatPasses) {
  GRAFT_NEEDS_FIXTURES();
  ThreadPool pool(2);
  const std::string folder = test::fixtures() + "/data/formats/";
  for (const char* name : {"text.jsonl", "completion.jsonl", "completion_messages.jsonl", "chat.jsonl",
                           "chat_tools.jsonl", "chat_array.json", "chat_extra_keys.jsonl", "alpaca.jsonl",
                           "sharegpt.jsonl", "plain.txt", "awkward_crlf_bom.jsonl"}) {
    const DataCheck check =
        check_data(folder + name, test::fixtures() + "/models/qwen2", {.max_length = 4096}, 2, pool);
    EXPECT_TRUE(check.passes()) << name << "\n" << check.text(false);
    EXPECT_EQ(check.faults.num_warnings, 0) << name << "\n" << check.to_json()["warnings"];
    const FileCheck& f = check.files[0];
    EXPECT_GT(f.num_trained_tokens, 0) << name;
    EXPECT_LT(f.num_trained_tokens, f.num_tokens) << name;
    EXPECT_EQ(f.num_ending, f.num_rows - f.num_untrained) << name << ": the end token is trained";
    EXPECT_FALSE(check.shown.empty()) << name;
  }
}

TEST(DataCheck, TellsWhatIsThere) {
  const test::TempDir folder;
  write_file(folder / "train.jsonl",
             "{\"prompt\": \"one\", \"completion\": \" two\"}\n"
             "{\"prompt\": \"three\", \"completion\": \" four\"}\n"
             "\n"
             "{\"prompt\": \"one\", \"completion\": \" two\"}\n");
  write_file(folder / "valid.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  ThreadPool pool(1);
  const DataCheck check = check_data(folder.path(), kCheckModel, {}, 1, pool);
  EXPECT_TRUE(check.passes());
  const Json json = check.to_json();
  EXPECT_EQ(json["rows"], 3);
  EXPECT_EQ(json["duplicates"], 1);
  EXPECT_EQ(json["faults"], Json::array());
  EXPECT_EQ(json["end_token"], "<|im_end|>");
  EXPECT_EQ(json["end_token_trained"], 3);
  EXPECT_EQ(json["valid"]["rows"], 1);
  ASSERT_EQ(check.shown.size(), 1u);
  ASSERT_EQ(check.shown[0].pieces.size(), 2u);
  EXPECT_EQ(check.shown[0].pieces[0], (std::pair<bool, std::string>(false, "one")));
  EXPECT_EQ(check.shown[0].pieces[1], (std::pair<bool, std::string>(true, " two<|im_end|>")));
  const std::string text = check.text(false);
  EXPECT_NE(text.find("one⟦ two<|im_end|>⟧"), std::string::npos) << text;
  EXPECT_NE(text.find("train.jsonl:4 repeats "), std::string::npos) << text;
  EXPECT_NE(text.find("<|im_end|> is trained in every row"), std::string::npos) << text;
}

TEST(DataCheck, RowsBeyondTheLimitAreNamed) {
  const test::TempDir folder;
  write_file(folder / "d.jsonl",
             "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"one two three four five six seven\", "
             "\"completion\": \"b\"}\n");
  ThreadPool pool(1);
  const auto check = [&](int64_t max_length) {
    return check_data(folder / "d.jsonl", kCheckModel, {.max_length = max_length}, 0, pool);
  };
  test::CapturedLog log;
  const DataCheck one = check(4);
  EXPECT_FALSE(one.passes());  // training would stop
  EXPECT_EQ(one.to_json()["too_long"], 1);
  EXPECT_NE(one.text(false).find("d.jsonl:2: the row has "), std::string::npos) << one.text(false);
  EXPECT_TRUE(check(1000).passes());
  for (const char* how : {"truncate", "drop"}) {  // and not stop
    EXPECT_TRUE(check_data(folder / "d.jsonl", kCheckModel, {.too_long = how, .max_length = 4}, 0, pool).passes());
  }
  const DataCheck all = check(1);
  EXPECT_EQ(all.faults.num_fatal, 1);  // the limit's fault, not each row's
  EXPECT_NE(all.text(false).find("too long    all rows"), std::string::npos) << all.text(false);
}

TEST(DataCheck, PretokenisedRowsNeedNoTokenizer) {
  const test::TempDir folder;
  write_file(folder / "config.json", read_file("tests/data/tiny/config.json"));
  SafetensorsWriter writer(folder / "d.safetensors",
                           {{"input_ids", DType::kI64, {1, 2, 4}, {}}, {"labels", DType::kI64, {1, 2, 4}, {}}});
  const std::vector<int64_t> ids = {1, 2, 3, 4, 5, 6, 7, 8}, labels = {-100, 2, 3, -100, 5, 6, 7, 8};
  writer.write("input_ids", std::as_bytes(std::span(ids)));
  writer.write("labels", std::as_bytes(std::span(labels)));
  writer.commit();
  ThreadPool pool(1);
  const DataCheck check = check_data(folder / "d.safetensors", folder.path(), {}, 1, pool);
  EXPECT_TRUE(check.passes());
  EXPECT_EQ(check.to_json()["trained_tokens"], 5);
  EXPECT_NE(check.text(false).find("⟦ 2 3 ⟧"), std::string::npos) << check.text(false);
  EXPECT_FALSE(check_data(folder / "d.safetensors", folder.path(), {.max_length = 3}, 1, pool).passes());
}

TEST(DataCheck, FaultsOfAllFilesStandInTheAnswer) {
  const test::TempDir folder;
  write_file(folder / "train.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n");
  write_file(folder / "valid.jsonl", "{\"txt\": \"b\"}\n");
  ThreadPool pool(1);
  const DataCheck check = check_data(folder.path(), kCheckModel, {}, 0, pool);
  EXPECT_FALSE(check.passes());
  const Json faults = check.to_json()["faults"];
  ASSERT_EQ(faults.size(), 2u);
  EXPECT_NE(faults[0]["where"].get<std::string>().find("train.jsonl:2"), std::string::npos);
  EXPECT_NE(faults[1]["where"].get<std::string>().find("valid.jsonl:1"), std::string::npos);
  EXPECT_NE(faults[1]["hint"].get<std::string>().find("messages"), std::string::npos);
  // Every kind of fault says what to do, below the faults that share it and once in a refusal.
  for (const Json& fault : faults) {
    const auto hint = fault["hint"].get<std::string>();
    ASSERT_FALSE(hint.empty());
    EXPECT_NE(check.text(false).find("    hint: " + hint + "\n"), std::string::npos) << check.text(false);
  }
  write_file(folder / "three.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n{\"text\": 6}\n{\"text\": \"b\"\n");
  try {
    read_data_rows(folder / "three.jsonl").faults.throw_if_fatal("three.jsonl");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(
        e.hint(),
        "correct the row or take it out; a row is one whole JSON object; in .jsonl it stands on a line of its own");
  }
}

}  // namespace
}  // namespace graft
