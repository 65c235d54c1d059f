#include "graft/text/normalizer.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

Normalizer make_normalizer(std::string_view json) {
  const Json value = parse_json(json, "test");
  return Normalizer(JsonField(&value, "test"));
}

std::string run(std::string_view json, std::string_view text, bool skip_prefix = false) {
  AlignedText aligned(text, 0);
  make_normalizer(json).normalize(aligned, skip_prefix);
  return std::string(aligned.text());
}

// "begin-end" of every byte.
std::string spans(std::string_view json, std::string_view text) {
  AlignedText aligned(text, 0);
  make_normalizer(json).normalize(aligned, false);
  std::string out;
  for (size_t i = 0; i < aligned.text().size(); ++i) {
    out += fmt::format("{}-{} ", aligned.span(i).begin, aligned.span(i).end);
  }
  return out;
}

constexpr const char* kNfc = R"({"type": "NFC"})";
constexpr const char* kNfd = R"({"type": "NFD"})";
constexpr const char* kNfkc = R"({"type": "NFKC"})";
constexpr const char* kNfkd = R"({"type": "NFKD"})";

// Unicode's own examples (UAX 15, figures 3 to 6).
TEST(Normalizer, UnicodeForms) {
  EXPECT_EQ(run(kNfc, "e\u0301 \u212B \u2126"), "é Å Ω");
  EXPECT_EQ(run(kNfd, "é"), "e\u0301");
  EXPECT_EQ(run(kNfc, "s\u0307\u0323"), "\u1E69");
  EXPECT_EQ(run(kNfd, "\u1E69"), "s\u0323\u0307");
  EXPECT_EQ(run(kNfc, "\uFB01"), "\uFB01");
  EXPECT_EQ(run(kNfkc, "\uFB01 2\u2075 \uFDFA").substr(0, 5), "fi 25");
  EXPECT_EQ(run(kNfkd, "\u1E9B\u0323"), "s\u0323\u0307");
  EXPECT_EQ(run(kNfkc, "\u1E9B\u0323"), "\u1E69");
  EXPECT_EQ(run(kNfc, "\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(run(kNfc, "\uAC00\u11A8 \u0301x"), "\uAC01 \u0301x");
  EXPECT_EQ(run(kNfd, "\uAC01"), "\u1100\u1161\u11A8");
  EXPECT_EQ(run(kNfc, "a\u0315\u0300\u05AE\u0300b"), "\u00E0\u05AE\u0300\u0315b");  // NormalizationTest.txt
  EXPECT_EQ(run(kNfc, "\u0958"), "\u0915\u093C");                                   // composition exclusion
}

TEST(Normalizer, LeavesAloneWhatTheReferenceDoesNotKnow) {
  EXPECT_EQ(run(kNfkc, "\u32FF"), "\u32FF");  // Unicode 12.1
  EXPECT_EQ(run(kNfkc, "\u32FE"), "\u30F2");
  EXPECT_EQ(run(kNfc, "\u0331\u0EBA"), "\u0331\u0EBA");  // a mark of class 9 since Unicode 12
  EXPECT_EQ(run(kNfc, "\u0331\u0E3A"), "\u0E3A\u0331");
}

// As the reference library aligns "élégant" decomposed and composed again.
TEST(Normalizer, AlignsToTheOriginal) {
  EXPECT_EQ(spans(kNfd, "él"), "0-2 0-2 0-2 2-3 ");
  EXPECT_EQ(spans(kNfc, "xe\u0301l"), "0-1 1-2 1-2 4-5 ");
  EXPECT_EQ(spans(R"({"type": "Prepend", "prepend": "\u2581"})", "éa"), "0-2 0-2 0-2 0-2 0-2 2-3 ");
  EXPECT_EQ(spans(R"({"type": "Replace", "pattern": {"String": "ll"}, "content": "Ñ"})", "Hello"),
            "0-1 1-2 3-4 3-4 4-5 ");
  EXPECT_EQ(spans(R"({"type": "Strip"})", "  a\u3000"), "2-3 ");
}

TEST(Normalizer, OtherSteps) {
  EXPECT_EQ(run(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(run(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(run(R"({"type": "Prepend", "prepend": "_"})", "a", /*skip_prefix=*/true), "a");
  EXPECT_EQ(run(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})", "a   b c"), "a b c");
  EXPECT_EQ(run(R"({"type": "Lowercase"})", "ÀB\u0130Σ"), "àbi\u0307σ");
  EXPECT_EQ(run(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " \ta "), "a ");
  EXPECT_EQ(run(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})", "élé"), "ele");
  EXPECT_EQ(run(R"({"type": "ByteLevel"})", " é\n"), "ĠÃ©Ċ");
}

TEST(Normalizer, RefusesByName) {
  for (const char* type : {"Precompiled", "Nmt", "BertNormalizer"}) {
    try {
      make_normalizer(fmt::format(R"({{"type": "{}"}})", type));
      ADD_FAILURE() << type;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(type), std::string::npos);
    }
  }
}

TEST(Normalizer, StopsBlowUp) {
  std::string steps;
  for (int i = 0; i < 9; ++i) steps += R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"},)";
  steps.pop_back();
  EXPECT_THROW(run(R"({"type": "Sequence", "normalizers": [)" + steps + "]}", "a"), Error);
}

TEST(Unicode, LossyDecodingTakesMaximalSubparts) {
  EXPECT_EQ(utf8_lossy("a\xF0\x9F\x98z"), "a\uFFFDz");
  EXPECT_EQ(utf8_lossy("\xE0\x80\xAF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy("\xC3\xA9\xC3"), "é\uFFFD");
  EXPECT_EQ(find_invalid_utf8("abc\xC3"), 3u);
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u);
  EXPECT_EQ(find_invalid_utf8("é中🙂"), std::string_view::npos);
}

}  // namespace
}  // namespace graft
