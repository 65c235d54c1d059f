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

TEST(ChatTemplate, RendersFeaturesAsJinjaWithoutFixtures) {
  for (const Json& row : read_lines("tests/data/chat/jinja.jsonl")) check_feature(row);
}

TEST(ChatTemplate, CorpusOfTheFuzzer) {
  const Json variables = parse_json(R"({"messages": [{"role": "user", "content": "hi"}], "list": [1, 2]})", "test");
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/fuzz/corpus/template")) {
    ++count;
    const Outcome out = render(read_file(entry.path().string()), variables);
    EXPECT_EQ(out.failed, !out.error.empty()) << entry.path();
  }
  EXPECT_GT(count, 50);
}

// Python's strings where C++ would do otherwise. What stands right was printed by Jinja 3.1.
TEST(ChatTemplate, Strings) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{{ 'ΑΣ ΑΣΑ Σ'.lower() }}", "ας ασα σ"},
      {"{{ 'ﬁx ŉ'.upper() }} {{ 'ﬁx'.capitalize() }}", "FIX ʼN Fix"},
      {"{{ '\u00a0x\u3000'.strip() ~ '|' }}", "x|"},
      {"{{ 'a\\x1cb\\u2028c'.split() }} {{ 'a\\x0bb\\x85c'.splitlines() }}", "['a', 'b', 'c'] ['a', 'b', 'c']"},
      {"{{ ['\\x00', '\\u200b', '\\ud7ff', '🙂', '\\xad'] }}", "['\\x00', '\\u200b', '\\ud7ff', '🙂', '\\xad']"},
      {"{{ 'aaa'.split('a') }} {{ 'x'.split('x', 0) }} {{ ' a b '.split(None, 1) }}",
       "['', '', '', ''] ['x'] ['a', 'b ']"},
      {"{{ 'a b c d'.rsplit(None, 2) }} {{ 'aXbXc'.rsplit('X') }}", "['a b', 'c', 'd'] ['a', 'b', 'c']"},
      {"{{ 'abcabc'.find('c', 3) }} {{ 'abc'.find('', 9) }} {{ 'größe'.find('e') }}", "5 -1 4"},
      {"{{ 'abc'[-2:-9:-1] }} {{ 'abc'[5:] }}| {{ 'größe'[::-2] }}", "ba | eög"},
      {"{{ 'a' * -1 }}|{{ 3 * 'ab' }}", "|ababab"},
      {"{{ 'x'|center(4) ~ '|' ~ 'xy'.center(5) ~ '|' ~ 'xy'.center(5, '.') }}", " x  |  xy |..xy."},
      {"{{ '%05.1f|%-5s|%+d|%x|%5s|%%' % (3.14159, 'ab', 7, 255, 'r') }}", "003.1|ab   |+7|ff|    r|%"},
      {"{{ '{:>6}|{:<4}|{:^5}|{:,}|{:.2f}|{:08.3f}|{!r}|{{}}'.format('a', 'b', 'c', 1234567, 2.5, -3.14159, 'q') }}",
       "     a|b   |  c  |1,234,567|2.50|-003.142|'q'|{}"},
      {"{{ '{a[0]} {a[1].b}'.format(a=[1, {'b': 2}]) }}", "1 2"},
      {"{{ 'ab\\ncd'|indent(2, first=true) }}|{{ 'a\\n'|indent }}|", "  ab\n  cd|a\n|"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(text_of(source), expected) << source;
}

TEST(ChatTemplate, Numbers) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{{ 9223372036854775807 + 1 }} {{ -9223372036854775807 - 2 }}", "9223372036854775808 -9223372036854775809"},
      {"{{ 123456789012345678901234567890 - 123456789012345678901234567889 }}", "1"},
      {"{{ 3 ** 50 }} {{ (-2) ** 63 }} {{ 2 ** 64 * -1 }}",
       "717897987691852588770249 -9223372036854775808 -18446744073709551616"},
      {"{{ 2 ** 70 > 2 ** 69 }} {{ 2 ** 70 == 2.0 ** 70 }} {{ -(2 ** 70) < 0 }}", "True True True"},
      {"{{ 1e15 }} {{ 1e16 }} {{ 123456789012345680.0 }} {{ 0.0001 }} {{ 0.00001 }}",
       "1000000000000000.0 1e+16 1.2345678901234568e+17 0.0001 1e-05"},
      {"{{ -7 // 2.0 }} {{ 7 % -3.5 }} {{ -7.5 % 2 }} {{ 1e308 * 10 }}", "-4.0 -0.0 0.5 inf"},
      {"{{ '0b11'|int(0, 2) }} {{ 'ff'|int(base=16) }} {{ '1_000'|int }} {{ '1e3'|int }}", "3 255 1000 1000"},
      {"{{ 1.25|round(1) }} {{ 15|round(-1) }} {{ 1.5|round|int }}", "1.2 20 2"},
      {"{{ true + 1 }} {{ true == 1 }} {{ [1, 2].index(true) }} {{ {1: 'a', true: 'b'} }}", "2 True 0 {1: 'b'}"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(text_of(source), expected) << source;
}

TEST(ChatTemplate, Scopes) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "12 13 1"},
      {"{% set x = 1 %}{% macro f() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{{ f() }}{% set x = 2 %}{{ f() }}{{ x "
       "}}",
       "15252"},
      {"{% for i in [1] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}{{ f is defined }}", "1False"},
      {"{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "1False"},
      {"{% generation %}{% set y = 1 %}{% endgeneration %}{{ y is defined }}", "False"},
      {"{% for a in [1, 2, 3] if a != 2 %}{{ a }}{{ loop.length }}{% else %}-{% endfor %}", "1232"},
      {"{% macro f(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ f('x') }}{{ f(a='y') }}", "x!y!"},
      {"{% macro f() %}{{ varargs|length }}{{ kwargs|length }}{% endmacro %}{{ f(*[1, 2], **{'k': 3}) }}", "21"},
      {"{% for i in range(3) %}{% set outer = loop %}{% for j in range(2) %}{% if j %}{% break %}{% endif %}{{ "
       "outer.index }}{{ j }} {% endfor %}{% endfor %}",
       "10 20 30 "},
      {"{% if false %}{{ x|nothing }}{{ x is nothing }}{% endif %}{{ 1 if true else x|nothing }}", "1"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(text_of(source), expected) << source;
}

TEST(ChatTemplate, ErrorsNameFileLineAndFault) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a\n{{ x.y.z }}", "test.jinja:2: 'x' is undefined"},
      {"{% if a %}\n\n{% else %}", "test.jinja:1: the tag 'if' is never closed; expected 'endif'"},
      {"\n{% for x in y %}", "test.jinja:2: the tag 'for' is never closed; expected 'endfor' or 'else'"},
      {"{{ 1 +\n\n* }}", "test.jinja:3: expected an expression, found '*'"},
      {"{# x", "test.jinja:1: a comment is never closed; expected '#}'"},
      {"{{ 'x' + 1 }}", "test.jinja:1: unsupported operand types for +: 'str' and 'int'"},
      {"{{ {}.nope.x }}", "test.jinja:1: 'dict object' has no attribute 'nope'"},
      {"{{ [1][5].x }}", "test.jinja:1: list object has no element 5"},
      {"{{ 'x'.split(1, 2, 3) }}", "test.jinja:1: split() takes at most 2 arguments (3 given)"},
      {"{% macro f(a) %}{% endmacro %}\n{{ f(b=1) }}", "test.jinja:2: macro 'f' takes no keyword argument 'b'"},
      {"{% include 'x' %}", "test.jinja:1: the tag 'include' is refused: a chat template stands alone"},
      {"{{ raise_exception('as it is: ' ~ 1) }}", "as it is: 1"},
  };
  for (const auto& [source, expected] : kCases) EXPECT_EQ(text_of(source), std::string("error: ") + expected) << source;
}

TEST(ChatTemplate, TellsWhatDataWrote) {
  const Json variables =
      parse_json(R"({"messages": [{"content": " ab "}, {"content": "cd"}], "x": "z", "eos_token": "</s>"})", "test");
  const auto ranges = [&](const std::string& source) {
    std::string out;
    const Rendered rendered = ChatTemplate::compile(source, "test").render(variables);
    for (const DataRange& r : rendered.data) {
      out += std::to_string(r.message) + "[" +
             rendered.text.substr(static_cast<size_t>(r.begin), static_cast<size_t>(r.end - r.begin)) + "]";
    }
    return out;
  };
  EXPECT_EQ(
      ranges("{% for m in messages %}<{{ m.content|trim }}>{% endfor %}{{ x }}{{ eos_token }}{{ messages|length }}"),
      "0[ab]1[cd]-1[z]");
  EXPECT_EQ(ranges("{{ messages[0].content ~ messages[1].content }}"), "0[ ab ]1[cd]");
  EXPECT_EQ(ranges("{{ (messages[0].content ~ '-' ~ messages[1].content)[2:-1] }}"), "0[b ]1[c]");
  EXPECT_EQ(ranges("{{ messages[1].content|tojson }}{{ [messages[1].content] }}"), "1[cd]1[cd]");
  EXPECT_EQ(ranges("{{ messages[1].content.replace('c', '<s>') }}"), "1[d]");
  EXPECT_EQ(ranges("{{ ('<s>' ~ x)|upper }}"), "-1[<S>Z]");  // made anew: data as a whole
}

TEST(ChatTemplate, GenerationBlocksInsideMacrosAndBlocks) {
  const Outcome out = render(
      "{% macro f(x) %}({% generation %}{{ x }}{% endgeneration %}){% endmacro %}{{ f('ab') }}{% set y %}{{ f('c') "
      "}}{% endset %}{{ y }}",
      Json::object());
  EXPECT_EQ(out.text, "(ab)(c)");
  EXPECT_EQ(out.spans, (std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {5, 6}}));
}

TEST(ChatTemplate, ClockOfTheEnvironment) {
  setenv("SOURCE_DATE_EPOCH", "0", 1);
  EXPECT_EQ(text_of("{{ strftime_now('%Y-%m-%d %H:%M:%S %-d %f %q %%') }}"), "1970-01-01 00:00:00 1 000000 %q %");
  setenv("SOURCE_DATE_EPOCH", "yesterday", 1);
  EXPECT_NE(text_of("x").find("SOURCE_DATE_EPOCH"), std::string::npos);
  unsetenv("SOURCE_DATE_EPOCH");
  EXPECT_GE(text_of("{{ strftime_now('%Y') }}"), "2024");
}

TEST(ChatTemplate, LongConversationsStayWithinTheLimits) {
  Json messages = Json::array();
  const std::string content(5000, 'x');
  for (int i = 0; i < 2000; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", content}});
  }
  const Outcome out = render(
      "{% set ns = namespace(s='') %}{% for m in messages %}{{ m.role ~ m.content.strip().split('</think>')[-1]|trim ~ "
      "'\n' }}{% endfor %}",
      Json{{"messages", messages}});
  EXPECT_FALSE(out.failed) << out.error;
  EXPECT_GT(out.text.size(), 10000000u);
}

}  // namespace
}  // namespace graft
