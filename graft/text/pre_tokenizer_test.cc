#include "graft/text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

using Words = std::vector<std::string>;

Words pre_tokenize(std::string_view json, std::string_view text, bool with_spans = false, bool keep_bytes = false) {
  const Json value = parse_json(json, "test");
  const PreTokenizer pre_tokenizer(JsonField(&value, "test"));
  const AlignedText aligned(text, 0);
  std::vector<Piece> pieces{{&aligned, 0, static_cast<uint32_t>(text.size()), 0}};
  std::deque<AlignedText> arena;
  pre_tokenizer.split(pieces, arena, false, keep_bytes);
  Words out;
  for (const Piece& piece : pieces) {
    out.emplace_back(piece.text());
    const Span span = piece.span(0, piece.end - piece.begin);
    if (with_spans) out.back() += fmt::format("@{}-{}", span.begin, span.end);
  }
  return out;
}

Words split(std::string_view behavior, bool invert = false) {
  return pre_tokenize(
      fmt::format(R"({{"type": "Split", "pattern": {{"String": "-"}}, "behavior": "{}", "invert": {}}})", behavior,
                  invert),
      "the-final--countdown");
}

// The examples of the reference library's documentation.
TEST(PreTokenizer, SplitBehaviors) {
  EXPECT_EQ(split("Removed"), (Words{"the", "final", "countdown"}));
  EXPECT_EQ(split("Isolated"), (Words{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious"), (Words{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext"), (Words{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous"), (Words{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split("Removed", true), (Words{"-", "-", "-"}));
  EXPECT_THROW(split("Sideways"), Error);
}

TEST(PreTokenizer, Kinds) {
  EXPECT_EQ(pre_tokenize(R"({"type": "Whitespace"})", "Hey man, e\u0301_1!"),
            (Words{"Hey", "man", ",", "e\u0301_1", "!"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "WhitespaceSplit"})", " Hey,\u3000man\n"), (Words{"Hey,", "man"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "Punctuation"})", "Hey? man!$"), (Words{"Hey", "?", " man", "!", "$"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "Digits", "individual_digits": true})", "a12½"), (Words{"a", "1", "2", "½"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "Digits", "individual_digits": false})", "a12 3"), (Words{"a", "12", " ", "3"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "BertPreTokenizer"})", "Hey man!"), (Words{"Hey", "man", "!"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "CharDelimiterSplit", "delimiter": "|"})", "a|b||c"), (Words{"a", "b", "c"}));
  EXPECT_EQ(
      pre_tokenize(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation"}]})",
                   "a, b"),
      (Words{"a", ",", "b"}));
}

TEST(PreTokenizer, Metaspace) {
  EXPECT_EQ(
      pre_tokenize(R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": true})", "Hey   friend!", true),
      (Words{"▁Hey@0-3", "▁@3-4", "▁@4-5", "▁friend!@5-13"}));
  EXPECT_EQ(
      pre_tokenize(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false})", "a b"),
      Words{"a▁b"});
  EXPECT_EQ(
      pre_tokenize(
          R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "prepend_scheme": "first"}]})",
          "a b"),
      (Words{"▁a", "b"}));
  EXPECT_THROW(pre_tokenize(R"({"type": "Metaspace", "replacement": "ab"})", "a"), Error);
}

TEST(PreTokenizer, ByteLevel) {
  constexpr const char* kPrefixed = R"({"type": "ByteLevel", "add_prefix_space": true})";
  EXPECT_EQ(pre_tokenize(kPrefixed, "Hello é\n", true), (Words{"ĠHello@0-5", "ĠÃ©@5-8", "Ċ@8-9"}));
  EXPECT_EQ(pre_tokenize(kPrefixed, "Hello é", false, /*keep_bytes=*/true), (Words{" Hello", " é"}));
  EXPECT_EQ(pre_tokenize(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a b", true),
            Words{"aĠb@0-3"});
}

TEST(PreTokenizer, RefusesByName) {
  EXPECT_THROW(pre_tokenize(R"({"type": "UnicodeScripts"})", "a"), Error);
  EXPECT_THROW(pre_tokenize(R"({"type": "Sequence", "pretokenizers": [{"type": "Guess"}]})", "a"), Error);
}

}  // namespace
}  // namespace graft
