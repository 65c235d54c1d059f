#include "graft/text/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

JsonLimits big_integers() {
  JsonLimits limits;
  limits.keep_big_integers = true;
  return limits;
}

std::vector<Json> read_lines(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) rows.push_back(parse_json(line, path, big_integers()));
  }
  EXPECT_FALSE(rows.empty()) << path;
  return rows;
}

// The environment's clock, until the end of the test. Rows carry the time as their author's machine saw it, in UTC.
class Clock {
 public:
  explicit Clock(const Json& row) {
    if (!row.contains("now")) return;
    std::tm when{};
    strptime(row["now"].get<std::string>().c_str(), "%Y-%m-%dT%H:%M:%S", &when);
    setenv("SOURCE_DATE_EPOCH", std::to_string(timegm(&when)).c_str(), 1);
  }
  ~Clock() { unsetenv("SOURCE_DATE_EPOCH"); }
};

struct Outcome {
  std::string text, error;
  std::vector<std::pair<int64_t, int64_t>> spans;
  bool failed = false;
};

Outcome render(const std::string& source, const Json& variables) {
  Outcome out;
  try {
    Rendered rendered = ChatTemplate::compile(source, "test.jinja").render(variables);
    out.text = rendered.text;
    out.spans = rendered.spans;
  } catch (const Error& e) {
    out.failed = true;
    out.error = e.what();
  }
  return out;
}

std::string text_of(const std::string& source, const std::string& variables = "{}") {
  const Outcome out = render(source, parse_json(variables, "test"));
  return out.failed ? "error: " + out.error : out.text;
}

// One row of jinja.jsonl.
void check_feature(const Json& row) {
  const Clock clock(row);
  const Outcome out = render(row["template"], row["context"]);
  const auto id = row["id"].get<std::string>();
  if (row.contains("expected")) {
    EXPECT_FALSE(out.failed) << id << " " << row["template"] << ": " << out.error;
    EXPECT_EQ(out.text, row["expected"].get<std::string>()) << id << " " << row["template"];
  } else {
    EXPECT_TRUE(out.failed) << id << " " << row["template"] << " gave " << out.text;
    EXPECT_FALSE(out.error.empty() && out.failed) << id;
    if (row["error"].contains("message")) {
      EXPECT_EQ(out.error, row["error"]["message"].get<std::string>()) << id;
    }
  }
}

TEST(ChatTemplate, RendersEveryFeatureAsJinja) {
  GRAFT_NEEDS_FIXTURES();
  for (const Json& row : read_lines(test::fixtures() + "/chat/jinja.jsonl")) check_feature(row);
}

TEST(ChatTemplate, ASmallOne) { EXPECT_EQ(text_of("{{ a }}{{ 1 + 1 }}", R"({"a": "x"})"), "x2"); }

}  // namespace
}  // namespace graft
