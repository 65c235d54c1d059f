#include "graft/text/regex.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"
#include "graft/text/pattern.h"

namespace graft {
namespace {

// "[match]" and what lies between, in order.
std::string show(std::string_view pattern, std::string_view text) {
  std::vector<Match> matches;
  Regex(pattern, "test").find(text, matches);
  std::string out;
  for (const Match& m : matches) {
    const std::string_view part = text.substr(m.begin, m.end - m.begin);
    out += m.matched ? fmt::format("[{}]", part) : std::string(part);
  }
  return out;
}

TEST(Regex, MatchesAndWhatLiesBetween) {
  EXPECT_EQ(show("b+", "abbc b"), "a[bb]c [b]");
  EXPECT_EQ(show("x", ""), "");
  EXPECT_EQ(show("x", "abc"), "abc");
  EXPECT_EQ(show("é", "caféé"), "caf[é][é]");
}

TEST(Regex, EmptyMatches) {
  EXPECT_EQ(show("x*", "axxb"), "[]a[xx]b[]");  // none right behind a match
  EXPECT_EQ(show("$", "a\nb"), "a[]\nb[]");     // lines, as in Oniguruma
  EXPECT_EQ(show("^", "é\né"), "[]é\n[]é");
}

TEST(Regex, ReadsOnigurumaWhereItDiffers) {
  EXPECT_EQ(show("\\s", "a\u180Eb\u3000c"), "a\u180Eb[\u3000]c");
  EXPECT_EQ(show("[^\\s]+", "a\u180E b"), "[a\u180E] [b]");
  EXPECT_EQ(show("\\w+", "e\u0301_1½ ①"), "[e\u0301_1½] ①");
  EXPECT_EQ(show("\\b", "e\u0301x ①a"), "[]e\u0301x[] ①[]a[]");
  EXPECT_EQ(show("\\p{Han}+", "中、ア"), "[中]、ア");  // the script, not its extensions
  EXPECT_EQ(show("\\h+", "xCAFE z"), "x[CAFE] z");
  EXPECT_EQ(show("a{,2}b", "aaab"), "a[aab]");
  EXPECT_EQ(show("a{1,2}+a", "aaaa"), "[aaaa]");  // repeats, is not possessive
  EXPECT_EQ(show("\\u0041+", "xAA"), "x[AA]");
  EXPECT_EQ(show("\\p{Letter}+", "abc1"), "[abc]1");
  EXPECT_EQ(show("\\p{Lowercase_Letter}+", "aBc"), "[a]B[c]");
  EXPECT_EQ(show("(?i:'s)", "'S'\u017F"), "['S]['\u017F]");
  EXPECT_EQ(show("[]a]+", "]ab"), "[]a]b");
}

TEST(Regex, RefusesWhatItCannotRead) {
  for (const char* pattern : {"[a[bc]]", "[a-z&&[^b]]", "[\\W]", "a{2,3}+", "(", "[a", "\\u12", "a\\"}) {
    try {
      const Regex regex(pattern, "here");
      ADD_FAILURE() << pattern << " compiled";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("here: the regex"), std::string::npos) << e.what();
    }
  }
}

TEST(Regex, EndsABomb) {
  EXPECT_THROW(show("(x+x+)+y", std::string(60, 'x') + "zy"), Error);  // PCRE2 looks for the y first
  const std::string many(1 << 20, 'x');                                // and is in time on long texts
  EXPECT_EQ(show("\\p{L}+", many), "[" + many + "]");
}

TEST(Pattern, LiteralsAndRegexes) {
  const auto count = [](const char* json, std::string_view text) {
    const Json value = parse_json(json, "test");
    std::vector<Match> matches;
    Pattern::from_json(JsonField(&value, "test")).find(text, matches);
    return matches.size();
  };
  EXPECT_EQ(count(R"({"String": "ab"})", "xabab"), 3u);
  EXPECT_EQ(count(R"({"String": "."})", "abc"), 1u);
  EXPECT_EQ(count(R"({"Regex": "."})", "abc"), 3u);
  EXPECT_THROW(count(R"({"String": ""})", "abc"), Error);
  EXPECT_THROW(count(R"({"Glob": "*"})", "abc"), Error);
}

}  // namespace
}  // namespace graft
