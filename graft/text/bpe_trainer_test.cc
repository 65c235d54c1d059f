#include "graft/text/bpe_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/base/random.h"
#include "graft/text/normalizer.h"
#include "graft/text/split_scanner.h"
#include "graft/text/tokenizer.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

LearnedBpe learned(const std::vector<std::string>& texts, BpeTrainerConfig config) {
  BpeTrainer trainer(std::move(config));
  for (const std::string& text : texts) trainer.add(text);
  return trainer.train();
}

std::vector<std::string> written_merges(const LearnedBpe& bpe) {
  std::vector<std::string> out;
  for (const auto& [left, right] : bpe.merges) {
    std::string merge;
    for (const char c : bpe.tokens[static_cast<size_t>(left)]) merge += byte_level_char(static_cast<uint8_t>(c));
    merge += " ";
    for (const char c : bpe.tokens[static_cast<size_t>(right)]) merge += byte_level_char(static_cast<uint8_t>(c));
    out.push_back(merge);
  }
  return out;
}

// The meaning in plain loops: count all pairs of all words again before each merge.
LearnedBpe learned_slowly(const std::string& text, int64_t vocab_size) {
  LearnedBpe out = learned({}, {.vocab_size = 256});
  std::vector<Match> matches;
  SplitScanner::for_pattern(kGpt2Pattern)->find(text, matches);
  std::vector<std::vector<int32_t>> words;
  for (const Match& match : matches) {
    std::vector<int32_t>& word = words.emplace_back();
    for (const char c : text.substr(match.begin, match.end - match.begin)) {
      word.push_back(static_cast<int32_t>(std::find(out.tokens.begin(), out.tokens.end(), std::string(1, c)) -
                                          out.tokens.begin()));
    }
  }
  while (static_cast<int64_t>(out.tokens.size()) < vocab_size) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;  // in the order of ties
    for (const auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    if (counts.empty()) break;
    const auto best = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
                        return a.second < b.second;
                      })->first;
    const std::string joined =
        out.tokens[static_cast<size_t>(best.first)] + out.tokens[static_cast<size_t>(best.second)];
    const auto known = std::find(out.tokens.begin(), out.tokens.end(), joined);
    const auto id = static_cast<int32_t>(known - out.tokens.begin());
    if (known == out.tokens.end()) out.tokens.push_back(joined);
    if (std::find(out.merges.begin(), out.merges.end(), best) == out.merges.end()) out.merges.push_back(best);
    for (auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != best.first || word[i + 1] != best.second) continue;
        word[i] = id;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  for (const auto& word : words) out.num_text_tokens += static_cast<int64_t>(word.size());
  return out;
}

Json recorded() { return read_json("tests/data/tokenizer/trained.json"); }

// The merges that `tokenizers` learned from the same texts, many of them ties.
TEST(BpeTrainer, LearnsTheMergesOfTheReference) {
  const Json want = recorded();
  const std::string more = want["more"];
  const BpeTrainerConfig config{.vocab_size = want["vocab_size"].get<int64_t>(),
                                .special_tokens = want["special"].get<std::vector<std::string>>()};
  const LearnedBpe bpe = learned({read_file("LICENSE"), more, more}, config);
  EXPECT_EQ(written_merges(bpe), want["merges"].get<std::vector<std::string>>());
  EXPECT_EQ(static_cast<int64_t>(bpe.tokens.size()), config.vocab_size);
  const Tokenizer tokenizer = Tokenizer::from_json(bpe.tokenizer_json(), "tokenizer.json");
  EXPECT_EQ(tokenizer.encode_ids(read_file("LICENSE") + more).size(), want["num_ids"].get<size_t>());
}

TEST(BpeTrainer, CountsAreThoseOfPlainLoops) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    // Few letters, so that pairs overlap, tokens arise in several ways and counts tie.
    const RandomStream stream(seed, stream_hash("text"));
    std::string text;
    const std::vector<std::string> letters = {"a", "b", "c", "ab", " ", " ", "é", "1", "\n"};
    for (uint64_t i = 0; i < 400; ++i) text += letters[stream.block(i)[0] % (seed % 2 == 0 ? letters.size() : 5)];
    const LearnedBpe want = learned_slowly(text, 256 + 60);
    const LearnedBpe got = learned({text}, {.vocab_size = 256 + 60});
    EXPECT_EQ(got.tokens, want.tokens) << seed;
    EXPECT_EQ(got.merges, want.merges) << seed;
    EXPECT_EQ(got.num_text_tokens, want.num_text_tokens) << seed;
  }
}

TEST(BpeTrainer, TheFileEncodesAndDecodes) {
  const std::string text = read_file("LICENSE");
  const LearnedBpe bpe = learned({text}, {.vocab_size = 600, .special_tokens = {"<|endoftext|>", "<|im_start|>"}});
  const Tokenizer tokenizer = Tokenizer::from_json(bpe.tokenizer_json(), "tokenizer.json");
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_TRUE(tokenizer.is_special(0) && tokenizer.is_special(1) && !tokenizer.is_special(2));
  const std::vector<int32_t> ids = tokenizer.encode_ids(text);
  EXPECT_EQ(static_cast<int64_t>(ids.size()), bpe.num_text_tokens);
  EXPECT_EQ(tokenizer.decode(ids), text);
  for (const std::string other : {"Größe 日本 🙂\r\n\t x", " ", "", "\x01\x7f"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode_ids(other)), other);
  }
  EXPECT_EQ(tokenizer.encode_ids("<|im_start|>"), std::vector<int32_t>{1});
}

TEST(BpeTrainer, ByteTokenizer) {
  const LearnedBpe bpe = learned({"text that is counted"}, {.vocab_size = 257, .special_tokens = {"<|endoftext|>"}});
  EXPECT_TRUE(bpe.merges.empty());
  const Tokenizer tokenizer = Tokenizer::from_json(bpe.tokenizer_json(), "tokenizer.json");
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  const std::vector<int32_t> ids = tokenizer.encode_ids("é!");
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids[2], 1);  // '!' is the first of the visible characters
  EXPECT_EQ(tokenizer.decode(ids), "é!");
}

TEST(BpeTrainer, OrderAndCutOfTextsDoNotMatter) {
  const std::vector<std::string> texts = {"one two two three", " three three four", " four four four"};
  const BpeTrainerConfig config{.vocab_size = 280};
  const LearnedBpe a = learned(texts, config), b = learned({texts[2], texts[0], texts[1]}, config),
                   c = learned({texts[0] + texts[1] + texts[2]}, config);
  EXPECT_EQ(a.tokenizer_json(), b.tokenizer_json());
  EXPECT_EQ(a.tokenizer_json(), c.tokenizer_json());
}

TEST(BpeTrainer, MinFrequencyEndsIt) {
  const std::string text = "low low low lower lowest";
  const LearnedBpe all = learned({text}, {.vocab_size = 1000}),
                   twice = learned({text}, {.vocab_size = 1000, .min_frequency = 2});
  EXPECT_LT(twice.merges.size(), all.merges.size());
  EXPECT_TRUE(std::equal(twice.merges.begin(), twice.merges.end(), all.merges.begin()));
  EXPECT_EQ(all.num_text_tokens, 5);  // a token a word
}

// A merge whose result is a special token would make text look like it.
TEST(BpeTrainer, NoMergeMakesASpecialToken) {
  const LearnedBpe bpe = learned({"pad pad pad pad padding"}, {.vocab_size = 300, .special_tokens = {" pad", "pad"}});
  const Tokenizer tokenizer = Tokenizer::from_json(bpe.tokenizer_json(), "tokenizer.json");
  EXPECT_GT(tokenizer.encode_ids("pad", {.parse_special_tokens = false}).size(), 1u);
  EXPECT_EQ(tokenizer.encode_ids("pad").size(), 1u);
}

TEST(BpeTrainer, WordsWithoutEndStayWithinBounds) {
  const LearnedBpe bpe = learned({std::string(1 << 20, 'a')}, {.vocab_size = 1 << 24});
  EXPECT_LE(bpe.tokens.back().size(), 4096u);  // 256 words of 4,096 letters become a token each
  EXPECT_EQ(bpe.num_text_tokens, 256);
}

TEST(BpeTrainer, SaysWhatIsWrong) {
  const auto fault = [](const BpeTrainerConfig& config) { return test::error_of([&] { config.validate(); }); };
  EXPECT_EQ(fault({.vocab_size = 256}), "");
  EXPECT_EQ(fault({.vocab_size = 255}),
            "the vocabulary size is 255, expected 256 (256 bytes and 0 special tokens) to 16777216");
  EXPECT_NE(fault({.vocab_size = 256, .special_tokens = {"<s>"}}).find("expected 257"), std::string::npos);
  EXPECT_NE(fault({.vocab_size = int64_t{1} << 40}).find("to 16777216"), std::string::npos);
  const std::string all =
      fault({.vocab_size = -1, .min_frequency = 0, .special_tokens = {"", "x", "<s>", "<s>", "\xff\xfe"}});
  for (const char* word :
       {"6 faults", "-1", "frequency is 0", "'' is empty", "'x' is a single", "'<s>' is given twice", "is not UTF-8"}) {
    EXPECT_NE(all.find(word), std::string::npos) << word << " in " << all;
  }
  BpeTrainer trainer({.vocab_size = 300});
  EXPECT_NE(test::error_of([&] { trainer.add("ab\xC0\xAF"); }).find("not UTF-8 at byte 2"), std::string::npos);
}

}  // namespace
}  // namespace graft
