#include "graft/text/split_scanner.h"

#include <gtest/gtest.h>

#include "graft/base/error.h"

namespace graft {
namespace {

std::vector<std::string> cut(std::string_view text, const auto& pattern) {
  std::vector<Match> matches;
  pattern.find(text, matches);
  std::vector<std::string> out;
  for (const Match& m : matches) out.emplace_back(text.substr(m.begin, m.end - m.begin));
  return out;
}

TEST(SplitScanner, CutsAsTheRegexDoes) {
  // What the patterns tell apart: apostrophes with letters, cases, digits, signs, marks, newlines, spaces of all kinds.
  const std::string_view kPieces[] = {
      "'",      "s",      "S",      "t",      "re", "LL", "vE", "\u017F", "a",      "é",    "中",     "\u0301",
      "1",      "٣",      "½",      "Ⅷ",      " ",  " ",  "  ", "\t",     "\n",     "\r\n", "\u00A0", "\u3000",
      "\u0085", "\u2028", "\u180E", "\u200B", "!",  "--", "_",  "🙂",   "\u093F", "ǅ"};
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, kQwen35Pattern}) {
    const auto scanner = SplitScanner::for_pattern(pattern);
    ASSERT_TRUE(scanner.has_value()) << pattern;
    const Regex regex(pattern, "test");
    uint64_t state = 7;
    for (int round = 0; round < 4000; ++round) {
      std::string text;
      for (int count = round % 13 + 1; count > 0; --count) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        text += kPieces[(state >> 33) % std::size(kPieces)];
      }
      ASSERT_EQ(cut(text, *scanner), cut(text, regex)) << printable(text, 200) << " " << pattern;
    }
  }
}

TEST(SplitScanner, KnownCuts) {
  using Cuts = std::vector<std::string>;
  const auto qwen = *SplitScanner::for_pattern(kQwen2Pattern);
  EXPECT_EQ(cut("I'm  sure\n\n x12", qwen), (Cuts{"I", "'m", " ", " sure", "\n\n", " x", "1", "2"}));
  EXPECT_EQ(cut("trailing   ", qwen), (Cuts{"trailing", "   "}));
  const auto llama = *SplitScanner::for_pattern(kLlama3Pattern);
  EXPECT_EQ(cut("12345", llama), (Cuts{"123", "45"}));
  EXPECT_FALSE(SplitScanner::for_pattern("\\w+").has_value());
}

}  // namespace
}  // namespace graft
