#include "graft/text/added_tokens.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

AddedTokens make_tokens(std::vector<AddedToken> tokens, const Normalizer& normalizer = {}) {
  AddedTokens out;
  for (AddedToken& token : tokens) out.add(std::move(token));
  out.build(normalizer, "test");
  return out;
}

// "text<id>text": sections between bars, tokens as "[id:text]".
std::string cut(const AddedTokens& tokens, std::string_view text, bool normalized = false, bool parse_special = true) {
  std::vector<AddedTokens::Section> sections;
  tokens.find(text, normalized, parse_special, sections);
  std::string out;
  for (const auto& s : sections) {
    const std::string_view part = text.substr(s.begin, s.end - s.begin);
    out += s.id >= 0 ? fmt::format("[{}:{}]", s.id, part) : std::string(part);
  }
  return out;
}

AddedToken raw(int32_t id, std::string content) {
  return {.id = id, .content = std::move(content), .normalized = false};
}

TEST(AddedTokens, LeftmostLongest) {
  const AddedTokens tokens = make_tokens({raw(1, "<a>"), raw(2, "<a><b>"), raw(3, "<b>"), raw(4, "a>")});
  EXPECT_EQ(cut(tokens, "x<a>y"), "x[1:<a>]y");
  EXPECT_EQ(cut(tokens, "<a><b><b>"), "[2:<a><b>][3:<b>]");
  EXPECT_EQ(cut(tokens, "<<a>"), "<[1:<a>]");
  EXPECT_EQ(cut(tokens, "aa><a"), "a[4:a>]<a");
  EXPECT_EQ(cut(tokens, "nothing"), "nothing");
  EXPECT_EQ(cut(tokens, ""), "");
}

TEST(AddedTokens, SingleWord) {
  AddedToken token = raw(1, "ing");
  token.single_word = true;
  const AddedTokens tokens = make_tokens({token});
  EXPECT_EQ(cut(tokens, "ing being ing! ing1 (ing)"), "[1:ing] being [1:ing]! ing1 ([1:ing])");
  EXPECT_EQ(cut(tokens, "éing ing\u0301"), "éing ing\u0301");
}

TEST(AddedTokens, StripTakesSpaces) {
  AddedToken left = raw(1, "<l>"), right = raw(2, "<r>");
  left.lstrip = true;
  right.rstrip = true;
  const AddedTokens tokens = make_tokens({left, right});
  EXPECT_EQ(cut(tokens, "a \u3000<l> b"), "a[1: \u3000<l>] b");
  EXPECT_EQ(cut(tokens, "a <r> \n b"), "a [2:<r> \n ]b");
  EXPECT_EQ(cut(tokens, "<r>  <l>"), "[2:<r>  ][1:<l>]");
  EXPECT_EQ(cut(make_tokens({right, raw(3, " ")}), "<r> x"), "[2:<r> ][3: ]x");  // both, as in the reference
}

TEST(AddedTokens, SpecialTokensMayStayText) {
  AddedToken special = raw(1, "<s>");
  special.special = true;
  const AddedTokens tokens = make_tokens({special, raw(2, "<t>")});
  EXPECT_EQ(cut(tokens, "<s><t>"), "[1:<s>][2:<t>]");
  EXPECT_EQ(cut(tokens, "<s><t>", false, /*parse_special=*/false), "<s>[2:<t>]");
  EXPECT_TRUE(tokens.is_special_content("<s>"));
  EXPECT_FALSE(tokens.is_special_content("<t>"));
}

TEST(AddedTokens, SecondPassSeeksNormalizedContent) {
  const Json json = parse_json(R"({"type": "Lowercase"})", "test");
  const Normalizer lowercase(JsonField(&json, "test"));
  const AddedTokens tokens = make_tokens({{.id = 1, .content = "MASK"}, raw(2, "RAW")}, lowercase);
  EXPECT_EQ(cut(tokens, "mask raw", true), "[1:mask] raw");
  EXPECT_EQ(cut(tokens, "MASK RAW", false), "MASK [2:RAW]");
}

TEST(AddedTokens, RefusesEndlessTokens) { EXPECT_THROW(make_tokens({raw(1, std::string(5000, 'a'))}), Error); }

}  // namespace
}  // namespace graft
