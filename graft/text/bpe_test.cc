#include "graft/text/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <thread>

#include "graft/base/error.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

Bpe make(const Json& json) { return Bpe(JsonField(&json, "test")); }

std::vector<std::string> tokens(const Bpe& model, std::string_view text) {
  std::vector<Symbol> symbols;
  model.encode(text, false, symbols);
  std::vector<std::string> out;
  for (const Symbol& s : symbols) out.emplace_back(model.vocabulary().token(s.id).value_or("?"));
  return out;
}
using Words = std::vector<std::string>;

uint64_t next(uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return state >> 33;
}

// Random merges over a few letters, so that words of every length merge deep.
Json random_model(uint64_t seed, int merges) {
  Json vocab = Json::object(), list = Json::array();
  std::vector<std::string> all;
  for (const char* c : {"a", "b", "c", "▁", "\n"}) all.emplace_back(c), vocab[c] = vocab.size();
  while (static_cast<int>(list.size()) < merges) {
    const std::string left = all[next(seed) % all.size()], right = all[next(seed) % all.size()];
    if (vocab.contains(left + right) || left.size() + right.size() > 12) continue;
    vocab[left + right] = vocab.size();
    all.push_back(left + right);
    list.push_back(Json::array({left, right}));
  }
  return {{"vocab", vocab}, {"merges", list}};
}

// The definition: again and again the pair of lowest rank, the leftmost of those, becomes one token.
Words merge_slowly(const Json& model, std::string_view text) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const Json& merge : model["merges"]) ranks.emplace(std::pair(merge[0], merge[1]), ranks.size());
  Words words;
  for (size_t i = 0; i < text.size();) {
    const size_t length = decode_utf8(text, i).length;
    words.emplace_back(text.substr(i, length));
    i += length;
  }
  while (true) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < words.size(); ++i) {
      const auto found = ranks.find({words[i], words[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, at = i;
    }
    if (best == SIZE_MAX) return words;
    words[at] += words[at + 1];
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, MergesAsDefined) {
  constexpr const char* kLetters[] = {"a", "b", "c", "▁", "\n"};
  uint64_t state = 3;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Json json = random_model(seed, 40);
    const Bpe model = make(json);
    for (const int length : {1, 2, 5, 12, 40, 60, 100, 300}) {  // cache, pairwise, heap
      for (int round = 0; round < 20; ++round) {
        std::string text;
        for (int i = 0; i < length; ++i) text += kLetters[next(state) % std::size(kLetters)];
        ASSERT_EQ(tokens(model, text), merge_slowly(json, text)) << seed << " " << text;
        ASSERT_EQ(tokens(model, text), merge_slowly(json, text)) << "the second time";
      }
    }
  }
}

TEST(Bpe, ThreadsAndModelsShareNothing) {
  const Json first = random_model(1, 40), second = random_model(2, 40);
  const Bpe a = make(first), b = make(second);
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] {
      bool equal = true;
      for (const std::string text : {"abcabcab", "ccba▁ab", "aaaaaa", "b▁b▁b"}) {
        for (int round = 0; round < 3; ++round) {  // in turns, so that a thread's cache changes hands
          equal =
              equal && tokens(a, text) == merge_slowly(first, text) && tokens(b, text) == merge_slowly(second, text);
        }
      }
      same[t] = equal;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::array<bool, 4>{true, true, true, true}));
}

TEST(Bpe, UnknownCharacters) {
  Json json = parse_json(
      R"({"unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3}, "merges": []})", "test");
  EXPECT_EQ(tokens(make(json), "xyaz"), (Words{"<unk>", "<unk>", "a", "<unk>"}));
  json["fuse_unk"] = true;
  EXPECT_EQ(tokens(make(json), "xyaz"), (Words{"<unk>", "a", "<unk>"}));
  json["byte_fallback"] = true;
  EXPECT_EQ(tokens(make(json), "aéü"), (Words{"a", "<0xC3>", "<0xA9>", "<unk>"}));  // ü is C3 BC
  json.erase("unk_token");
  EXPECT_EQ(tokens(make(json), "xaé"), (Words{"a", "<0xC3>", "<0xA9>"}));
  json["unk_token"] = "<none>";
  EXPECT_THROW(tokens(make(json), "x"), Error);
}

TEST(Bpe, IgnoreMergesTakesWholeWords) {
  Json json = parse_json(R"({"vocab": {"a": 0, "b": 1, "ab": 2, "aba": 3}, "merges": ["a b"]})", "test");
  EXPECT_EQ(tokens(make(json), "aba"), (Words{"ab", "a"}));
  json["ignore_merges"] = true;
  EXPECT_EQ(tokens(make(json), "aba"), Words{"aba"});
  EXPECT_EQ(tokens(make(json), "abab"), (Words{"ab", "ab"}));
}

TEST(Bpe, PrefixAndSuffix) {
  const Json json = parse_json(R"({"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
    "vocab": {"a": 0, "##b": 1, "##c</w>": 2, "a</w>": 3, "ab": 4, "##bc</w>": 5}, "merges": [["a", "##b"]]})",
                               "test");
  EXPECT_EQ(tokens(make(json), "abc"), (Words{"ab", "##c</w>"}));
  EXPECT_EQ(tokens(make(json), "a"), Words{"a</w>"});
  // Bytes are those of the character with prefix and suffix, as in the reference.
  Json bytes = parse_json(R"({"end_of_word_suffix": "!", "byte_fallback": true,
    "vocab": {"a": 0, "<0x78>": 1, "<0x21>": 2}, "merges": []})",
                          "test");
  EXPECT_EQ(tokens(make(bytes), "ax"), (Words{"a", "<0x78>", "<0x21>"}));
}

// 1 MB without a boundary: n log n, where n squared would take hours.
TEST(Bpe, LongWordsInTime) {
  const Bpe model = make(random_model(5, 60));
  uint64_t state = 9;
  std::string random, same(1 << 20, 'a');
  for (int i = 0; i < 1 << 20; ++i) random += "abc"[next(state) % 3];
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& text : {random, same}) {
    std::vector<Symbol> symbols;
    model.encode(text, false, symbols);
    size_t bytes = 0;
    for (const Symbol& s : symbols) bytes += s.length;
    EXPECT_EQ(bytes, text.size());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 20);  // takes 1 s; sanitizers and busy machines take longer
}

TEST(Bpe, RefusesBrokenModels) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"merges": []})", "vocab"},
      {R"({"vocab": [], "merges": []})", "vocab"},
      {R"({"vocab": {"a": 0.5}, "merges": []})", "0.5"},
      {R"({"vocab": {"a": 99999999}, "merges": []})", "99999999"},
      {R"({"vocab": {"a": 0, "b": 0}, "merges": []})", "'b' both have the id 0"},
      {R"({"vocab": {"a": 0}})", "merges"},
      {R"({"vocab": {"a": 0}, "merges": ["a a"]})", "merges[0]"},
      {R"({"vocab": {"a": 0}, "merges": ["a a a"]})", "merges[0]"},
      {R"({"vocab": {"a": 0, "": 1}, "merges": [["a", ""]]})", "merges[0]"},
      {R"({"vocab": {"a": 0, "aa": 1}, "merges": [["a", "a"], 7]})", "merges[1]"},
      {R"({"vocab": {"a": 0, "aa": 1}, "merges": [["a", "a", "a"]]})", "merges[0]"},
      {R"({"vocab": {"a": 0}, "merges": [], "dropout": 0.1})", "dropout"},
      {R"({"vocab": {"a": 0}, "merges": [], "fuse_unk": "yes"})", "fuse_unk"},
      {R"({"continuing_subword_prefix": "##", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})", "merges[0]"},
  };
  for (const auto& [text, word] : kCases) {
    const Json json = parse_json(text, "test");
    try {
      make(json);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace graft
