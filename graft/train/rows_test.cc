#include "graft/train/rows.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

class RowsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string file(const std::string& name, const std::string& content) {
    const std::string path = (folder_ / name).string();
    write_file(path, content);
    return path;
  }
  static std::string faults(const DataRows& rows) {
    std::string text;
    for (const DataFault& f : rows.faults.kept) text += f.where.substr(f.where.rfind('/') + 1) + ": " + f.what + "\n";
    return text;
  }
  std::filesystem::path folder_;
};

TEST_F(RowsTest, EveryFixtureFormatIsReadWhole) {
  GRAFT_NEEDS_FIXTURES();
  const std::pair<const char*, RowFormat> files[] = {{"text.jsonl", RowFormat::kText},
                                                     {"completion.jsonl", RowFormat::kCompletion},
                                                     {"completion_messages.jsonl", RowFormat::kCompletionMessages},
                                                     {"chat.jsonl", RowFormat::kMessages},
                                                     {"chat_tools.jsonl", RowFormat::kMessages},
                                                     {"chat_array.json", RowFormat::kMessages},
                                                     {"chat_extra_keys.jsonl", RowFormat::kMessages},
                                                     {"alpaca.jsonl", RowFormat::kAlpaca},
                                                     {"sharegpt.jsonl", RowFormat::kShareGpt},
                                                     {"plain.txt", RowFormat::kText}};
  for (const auto& [name, format] : files) {
    const std::string path = test::fixtures() + "/data/formats/" + name;
    const DataRows rows = read_data_rows(path);
    EXPECT_EQ(faults(rows), "") << name;
    ASSERT_FALSE(rows.rows.empty()) << name;
    EXPECT_EQ(rows.files[0].format, format) << name;
    if (!path.ends_with(".jsonl")) continue;
    std::ifstream in(path);
    const auto lines = std::count(std::istreambuf_iterator<char>(in), {}, '\n');
    EXPECT_EQ(static_cast<int64_t>(rows.rows.size()), lines) << name;
  }
  // The array holds the rows of another file, each with the line it begins on.
  const DataRows array = read_data_rows(test::fixtures() + "/data/formats/chat_array.json");
  const DataRows lines = read_data_rows(test::fixtures() + "/data/formats/chat.jsonl");
  for (size_t i = 0; i < array.rows.size(); ++i) {
    EXPECT_EQ(array.rows[i].chat->messages, lines.rows[i].chat->messages) << i;
  }
  EXPECT_EQ(array.rows[0].line, 2);
  // ShareGPT rows say the same conversations as messages rows.
  const DataRows share = read_data_rows(test::fixtures() + "/data/formats/sharegpt.jsonl");
  for (size_t i = 0; i < share.rows.size(); ++i) {
    EXPECT_EQ(share.rows[i].chat->messages, lines.rows[i].chat->messages) << i;
  }
}

TEST_F(RowsTest, AwkwardButLegal) {
  GRAFT_NEEDS_FIXTURES();
  const std::string folder = test::fixtures() + "/data/formats/";
  const DataRows rows = read_data_rows(folder + "awkward_crlf_bom.jsonl");
  EXPECT_EQ(faults(rows), "");
  const Json expect = read_json(folder + "awkward_crlf_bom.expect.json");
  ASSERT_EQ(rows.rows.size(), expect["rows"].size());
  for (size_t i = 0; i < rows.rows.size(); ++i) EXPECT_EQ(rows.rows[i].text, expect["rows"][i].get<std::string>());
  EXPECT_EQ(rows.rows[1].line, 3) << "blank lines are counted";
}

TEST_F(RowsTest, OpenAiDetails) {
  const DataRows rows = read_data_rows(file(
      "a.jsonl",
      R"({"messages":[{"role":"developer","content":[{"type":"text","text":"Be "},{"type":"text","text":"brief."}]},)"
      R"({"role":"user","content":"Depth?","name":null},)"
      R"({"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"depth","arguments":"{\"town\": \"amber\"}"}}]},)"
      R"({"role":"tool","tool_call_id":"1","content":"10"},)"
      R"({"role":"assistant","content":"Ten.","weight":0.5}],"tools":[{"type":"function","function":{"name":"depth"}}],"parallel_tool_calls":true})"
      "\n"
      R"({"messages":[{"role":"user","content":"Depth?"},{"role":"assistant","function_call":{"name":"depth","arguments":"{}"}},)"
      R"({"role":"function","name":"depth","content":"10"},{"role":"assistant","content":null,"refusal":"No."}],"functions":[{"name":"depth"}]})"
      "\n"));
  ASSERT_EQ(faults(rows), "");
  const ChatRow& first = *rows.rows[0].chat;
  EXPECT_EQ(first.messages[0]["content"], "Be brief.");
  EXPECT_FALSE(first.messages[1].contains("name"));
  EXPECT_EQ(first.messages[2]["tool_calls"][0]["function"]["arguments"], (Json{{"town", "amber"}}));
  EXPECT_FALSE(first.messages[2].contains("content"));
  EXPECT_EQ(first.weights, (std::vector<float>{1, 1, 1, 1, 0.5f}));
  EXPECT_FALSE(first.messages[4].contains("weight"));
  EXPECT_EQ(first.tools.size(), 1u);
  const ChatRow& second = *rows.rows[1].chat;
  EXPECT_EQ(second.messages[1]["tool_calls"][0]["function"]["name"], "depth");
  EXPECT_EQ(second.messages[2]["role"], "tool");
  EXPECT_EQ(second.messages[3]["content"], "No.");
  EXPECT_EQ(second.tools[0]["function"]["name"], "depth");
}

TEST_F(RowsTest, BigIntegersKeepTheirDigits) {
  const DataRows rows = read_data_rows(file(
      "a.jsonl",
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"n\": 123456789012345678901234567890}"}},)"
      R"({"function":{"name":"f","arguments":{"n":-99999999999999999999}}}]}]})"
      "\n"
      R"({"prompt":99999999999999999999,"completion":"x"})"
      "\n"));
  ASSERT_EQ(rows.rows.size(), 1u);
  const auto digits = [&](size_t call) {
    const Json& n = rows.rows[0].chat->messages[1]["tool_calls"][call]["function"]["arguments"]["n"];
    return n.is_binary() ? std::string(n.get_binary().begin(), n.get_binary().end()) : n.dump();
  };
  EXPECT_EQ(digits(0), "123456789012345678901234567890");
  EXPECT_EQ(digits(1), "-99999999999999999999");
  EXPECT_NE(faults(rows).find("'prompt' is the number 99999999999999999999"), std::string::npos) << faults(rows);
}

TEST_F(RowsTest, OtherFormats) {
  const DataRows alpaca = read_data_rows(file(
      "a.jsonl", R"({"instruction":"Add.","input":"1 2","output":"3","system":"Maths.","history":[["Hi","Hello"]]})"
                 "\n"));
  ASSERT_EQ(faults(alpaca), "");
  const Json& m = alpaca.rows[0].chat->messages;
  ASSERT_EQ(m.size(), 5u);
  EXPECT_EQ(m[0]["content"], "Maths.");
  EXPECT_EQ(m[3]["content"], "Add.\n1 2");
  EXPECT_EQ(m[4]["content"], "3");

  const DataRows share = read_data_rows(file(
      "s.jsonl",
      R"({"conversations":[{"from":"human","value":"q"},{"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{}}"},)"
      R"({"from":"observation","value":"o"},{"from":"gpt","value":"a","weight":0}],"system":"s","tools":"[{\"name\":\"f\"}]"})"
      "\n"));
  ASSERT_EQ(faults(share), "");
  EXPECT_EQ(share.rows[0].chat->messages[0]["role"], "system");
  EXPECT_EQ(share.rows[0].chat->messages[2]["tool_calls"][0]["function"]["name"], "f");
  EXPECT_EQ(share.rows[0].chat->weights.back(), 0);
  EXPECT_EQ(share.rows[0].chat->tools.size(), 1u);

  const DataRows trl = read_data_rows(file(
      "t.jsonl",
      R"({"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}],"chat_template_kwargs":{"enable_thinking":false}})"
      "\n"));
  ASSERT_EQ(faults(trl), "");
  EXPECT_EQ(trl.rows[0].chat->num_prompt_messages, 1);
  EXPECT_EQ(trl.rows[0].chat->template_args["enable_thinking"], false);
}

TEST_F(RowsTest, FaultsAreAllNamedWithTheirLine) {
  const DataRows rows = read_data_rows(file("bad.jsonl",
                                            "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                                            "\n"
                                            "{\"prompt\": \"a\"}\n"
                                            "{\"text\": \"x\"}\n"
                                            "{\"prompt\": \"a\", \"completion\": 4}\n"
                                            "nonsense\n"
                                            "{\"chosen\": \"a\", \"rejected\": \"b\"}\n"
                                            "{\"prompt\": [{\"role\": \"user\"}], \"completion\": \"x\"}\n"));
  const std::string text = faults(rows);
  EXPECT_EQ(rows.rows.size(), 1u);
  for (const char* word :
       {"bad.jsonl:3: 'completion' is missing", "bad.jsonl:4: a text row among prompt-completion rows (line 1)",
        "bad.jsonl:5: 'completion' is", "bad.jsonl:6: ", "bad.jsonl:7: a preference row",
        "bad.jsonl:8: 'prompt[0].content' is missing", "bad.jsonl:8: 'completion' is"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
  try {
    rows.faults.throw_if_fatal("bad.jsonl");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(":7: a preference row"), std::string::npos);
  }
}

TEST_F(RowsTest, ArrayFaultsHaveTheirLine) {
  const auto faults_of = [&](const std::string& text) { return faults(read_data_rows(file("a.json", text))); };
  EXPECT_EQ(faults_of(" [ ]\n"), "a.json: has no rows: the file is empty or blank\n");
  EXPECT_EQ(faults_of("[{\"text\": \"a]},\\\"\"}\n,\n{\"text\": \"b\"}]\n"), "");
  EXPECT_NE(faults_of("[\n{\"text\": \"a\"},\n{\"text\": 5}\n]").find("a.json:3: 'text' is"), std::string::npos);
  EXPECT_NE(faults_of("[{\"text\": \"a\"},\n]").find("a.json:2: a comma before"), std::string::npos);
  EXPECT_NE(faults_of("[,{\"text\": \"a\"}]").find("a.json:1: "), std::string::npos);
  EXPECT_NE(faults_of("[{\"text\": \"a\"}]\nx").find("a.json:2: text after"), std::string::npos);
  EXPECT_NE(faults_of("[\n{\"text\": \"a\"}\n").find("cut off"), std::string::npos);
  EXPECT_NE(faults_of("[\n{\"text\": \"a}\n").find("a.json:2: "), std::string::npos);
  EXPECT_NE(faults_of("[{\"text\": \"a\"} {\"text\": \"b\"}]").find("a.json:1: "), std::string::npos);
  EXPECT_EQ(faults_of("{\"text\": \"a\"}\n{\"text\": \"b\"}\n"), "") << "JSON lines under another name";
}

TEST_F(RowsTest, ManyFaultsCostNoMemory) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "x\n";
  const DataRows rows = read_data_rows(file("many.jsonl", text));
  EXPECT_EQ(rows.faults.num_fatal, 5000);
  EXPECT_EQ(rows.faults.kept.size(), DataFaults::kMaxKept);
  try {
    rows.faults.throw_if_fatal("many.jsonl");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("and 4950 more"), std::string::npos);
  }
}

TEST_F(RowsTest, PlainTextFile) {
  const DataRows rows = read_data_rows(file("a.txt", "one\ntwo\n"));
  ASSERT_EQ(rows.rows.size(), 1u);
  EXPECT_EQ(rows.rows[0].text, "one\ntwo\n");
  EXPECT_THROW(read_data_rows(file("b.txt", "one\n\xC0\xAF\n")), Error) << "not UTF-8";
  EXPECT_NE(faults(read_data_rows(file("c.txt", " \n"))).find("has no rows"), std::string::npos);
}

TEST_F(RowsTest, FoldersAndMissingFiles) {
  EXPECT_THROW(find_data((folder_ / "nothing.jsonl").string()), Error);
  EXPECT_THROW(find_data(folder_.string()), Error) << "no train.jsonl";
  file("train.jsonl", "{}");
  EXPECT_EQ(find_data(folder_.string()).valid, "");
  file("valid.jsonl", "{}");
  const DataPaths paths = find_data(folder_.string());
  EXPECT_TRUE(paths.train.ends_with("/train.jsonl"));
  EXPECT_TRUE(paths.valid.ends_with("/valid.jsonl"));
  EXPECT_FALSE(paths.pretokenised);
  EXPECT_TRUE(find_data(file("b.safetensors", "")).pretokenised);
  EXPECT_THROW(find_data(folder_.string()), Error) << "rows and weights in one folder";
}

}  // namespace
}  // namespace graft
