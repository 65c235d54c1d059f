#include "graft/formats/jsonl.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "tests/support/bad_case.h"
#include "tests/support/cpu_seconds.h"

namespace graft {
namespace {

struct Read {
  std::vector<JsonRow> rows;
  RowFaults faults;
};
Read read(std::string text, std::string_view kind = "jsonl") {
  Read result;
  result.rows = parse_rows(std::move(text), kind, "f", result.faults);
  return result;
}
std::string lines_of(const Read& result) {
  std::string text;
  for (const JsonRow& row : result.rows) text += fmt::format("{}:{} ", row.line, row.value.dump());
  for (const RowFault& fault : result.faults.list()) text += fmt::format("!{} ", fault.where);
  return text;
}

TEST(Jsonl, LinesBlankLinesAndByteOrderMark) {
  EXPECT_EQ(lines_of(read("{\"a\":1}\n{\"a\":2}\n")), "1:{\"a\":1} 2:{\"a\":2} ");
  EXPECT_EQ(lines_of(read("\xEF\xBB\xBF{\"a\":1}\r\n\r\n  \t\n {\"a\":2} \r\n{\"a\":3}")),
            "1:{\"a\":1} 4:{\"a\":2} 5:{\"a\":3} ");
  EXPECT_EQ(lines_of(read("\n\n{\"a\":\"x\u2028y\u0085z\"}\n")), "3:{\"a\":\"x\u2028y\u0085z\"} ");
}

TEST(Jsonl, EveryBadLineIsNamedAndTheRestIsRead) {
  const Read result = read("{\"a\":1}\n{a}\n[1]\n{\"a\":2}\n{\"a\":3} {\"a\":4}\n\"x\"\n{\"a\":\"\xff\"}\n{\"a\":");
  EXPECT_EQ(lines_of(result), "1:{\"a\":1} 4:{\"a\":2} !f:2 !f:3 !f:5 !f:6 !f:7 !f:8 ");
  EXPECT_EQ(result.faults.list()[0].what.find("not valid JSON at column 2"), 0u) << result.faults.list()[0].what;
  EXPECT_NE(result.faults.list()[1].what.find("an array, expected an object"), std::string::npos);
  EXPECT_NE(result.faults.list()[4].what.find("UTF-8"), std::string::npos);
  try {
    result.faults.throw_if_any();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find("f: 6 faults\n  f:2: not valid JSON"), 0u) << e.what();
  }
  EXPECT_EQ(lines_of(read("")), "!f ");
  EXPECT_EQ(lines_of(read(" \n\r\n")), "!f ");
  RowFaults many("m");
  for (int i = 1; i <= 12'345; ++i) many.add(i, "x");
  EXPECT_EQ(many.count(), 12'345);
  EXPECT_EQ(many.list().size(), 10'000u);
  try {
    many.throw_if_any();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("m:20: x\n  … and 12325 more"), std::string::npos);
  }
}

TEST(Jsonl, ArraysKeepTheirLines) {
  EXPECT_EQ(lines_of(read("[{\"a\":1},\n {\"a\":\n  [\"],}\",2]},\n\n{\"b\":\"\\\"]\"}\n]\n", "json")),
            "1:{\"a\":1} 2:{\"a\":[\"],}\",2]} 5:{\"b\":\"\\\"]\"} ");
  const Read bad = read("[\n{\"a\":1},\n{\"a\":\n  tru},\n3,\n{\"a\":2},]", "json");
  EXPECT_EQ(lines_of(bad), "2:{\"a\":1} 6:{\"a\":2} !f:4 !f:5 !f:6 ");
  EXPECT_EQ(lines_of(read("[]", "json")), "!f ");
  EXPECT_EQ(lines_of(read("[{\"a\":1}", "json")), "1:{\"a\":1} !f:1 ");
  EXPECT_EQ(lines_of(read("[{\"a\":1}]\n\nx", "json")), "1:{\"a\":1} !f:3 ");
  EXPECT_EQ(lines_of(read("[\"abc\\", "json")), "!f:1 !f:1 ");
  EXPECT_EQ(lines_of(read("\n{\n \"a\": 1\n}\n", "json")), "2:{\"a\":1} ");
  EXPECT_EQ(lines_of(read("{\"a\":1}\n{\"a\":2}\n", "json")), "1:{\"a\":1} 2:{\"a\":2} ");
  EXPECT_EQ(lines_of(read("{\n \"a\": oops\n}\n", "json")), "!f:2 ");
}

TEST(Jsonl, TextIsOneRow) {
  EXPECT_EQ(lines_of(read("one\r\ntwo\n", "txt")), "1:{\"text\":\"one\\r\\ntwo\\n\"} ");
  EXPECT_THROW(read("\xff", "txt"), Error);
}

TEST(Jsonl, OtherKindsOfFilesAreNamed) {
  for (const char* head : {"\x1f\x8b\x08", "PK\x03\x04", "PAR1", "\xff\xfe{", "\xfe\xff"}) {
    EXPECT_THROW(read(head), Error) << head;
  }
  EXPECT_THROW(RowReader("tests/data"), Error);
  EXPECT_THROW(RowReader("tests/data/nothing.jsonl"), Error);
}

TEST(Jsonl, AMillionRowsWithinSecondsAndLongLinesOverChunks) {
  const test::TempDir folder;
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += fmt::format("{{\"text\":\"{:07}\"}}\n", i);
  text += "{\"text\":\"" + std::string(5'000'000, 'x') + "\"}\n";
  write_file(folder / "m.jsonl", text);
  const double start = test::cpu_seconds();
  RowReader reader(folder / "m.jsonl");
  JsonRow row;
  int64_t rows = 0;
  while (reader.next(row)) ASSERT_EQ(row.line, ++rows);
  EXPECT_EQ(rows, 1'000'001);
  EXPECT_EQ(row.value["text"].get_ref<const std::string&>().size(), 5'000'000u);
  EXPECT_LT(test::cpu_seconds() - start, 20);  // 2 s; sanitizers take ten times as long
}

TEST(Jsonl, HostileFilesAreRefusedWithTheirLine) {
  GRAFT_NEEDS_FIXTURES();
  int refused = 0;
  for (const test::BadCase& c : test::bad_cases("read data")) {
    if (c.files.size() != 1) continue;
    const test::TempDir temporary;
    const std::string path = c.build(temporary) + "/" + c.files[0];
    std::string message;
    int64_t rows = 0;
    try {
      rows = static_cast<int64_t>(read_rows(path).size());
    } catch (const Error& e) {
      message = fmt::format("{}\n{}", e.what(), e.hint());
    }
    if (message.empty()) {  // what is wrong with good JSON is the data reader's matter
      if (c.raw.contains("expect")) {
        EXPECT_EQ(rows, c.raw["expect"]["rows"].get<int64_t>()) << c.id;
      }
      continue;
    }
    ++refused;
    EXPECT_TRUE(c.may("refuse")) << c.id << message;
    if (c.id != "data-all-faults") {
      EXPECT_EQ(c.missing_words(message), "") << c.id << ": " << message;
    }
  }
  EXPECT_GE(refused, 15);
}

TEST(Jsonl, ReadsTheRowFormatsOfTheFixtures) {
  GRAFT_NEEDS_FIXTURES();
  const std::string folder = test::fixtures() + "/data/formats/";
  const Json expected = read_json(folder + "awkward_crlf_bom.expect.json");
  std::vector<std::string> texts;
  for (const JsonRow& row : read_rows(folder + "awkward_crlf_bom.jsonl")) texts.push_back(row.value.at("text"));
  EXPECT_EQ(Json(texts), expected.at("rows"));
  EXPECT_GT(read_rows(folder + "chat_array.json").size(), 1u);
  EXPECT_EQ(read_rows(folder + "plain.txt").size(), 1u);
  EXPECT_EQ(read_rows(test::fixtures() + "/data/shelfql/train.jsonl").size(), 2400u);
}

}  // namespace
}  // namespace graft
