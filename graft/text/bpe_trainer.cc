#include "graft/text/bpe_trainer.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <unordered_set>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/text/normalizer.h"
#include "graft/text/split_scanner.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

constexpr size_t kMaxWordBytes = 4096;

// The bytes in the order of the characters that byte-level tokenizers write for them.
std::array<uint8_t, 256> bytes_by_char() {
  std::array<uint8_t, 256> order{};
  std::iota(order.begin(), order.end(), uint8_t{0});
  const auto code = [](uint8_t byte) { return decode_utf8(byte_level_char(byte), 0).code; };
  std::sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return code(a) < code(b); });
  return order;
}

std::string in_byte_chars(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += byte_level_char(static_cast<uint8_t>(c));
  return out;
}

// The words as ids, and where each pair of neighbours stands.
class PairCounts {
 public:
  struct Pair {
    int32_t left, right;
    int64_t count = 0;
    std::vector<uint32_t> words = {};  // that hold it, or held it
    bool touched = false;              // in grown_
  };

  void add_word(std::string_view word, const std::array<int32_t, 256>& id_of_byte, int64_t count) {
    words_.push_back({ids_.size(), static_cast<uint32_t>(word.size()), count});
    for (const char c : word) ids_.push_back(id_of_byte[static_cast<uint8_t>(c)]);
    const int32_t* ids = ids_.data() + words_.back().begin;
    for (size_t i = 0; i + 1 < word.size(); ++i) grow(ids[i], ids[i + 1], static_cast<uint32_t>(words_.size() - 1));
  }

  const Pair& pair(uint32_t index) const { return pairs_[index]; }
  int64_t num_tokens() const {
    int64_t total = 0;
    for (const Word& word : words_) total += word.count * word.length;
    return total;
  }

  // Calls f(index) for each pair that has gained since the last call.
  template <typename F>
  void take_grown(F&& f) {
    for (const uint32_t index : grown_) {
      pairs_[index].touched = false;
      f(index);
    }
    grown_.clear();
  }

  void forget(uint32_t index) { pairs_[index].count = 0; }

  // Puts `token` in place of the pair, from the left, wherever it stands. The pair's count is 0 then.
  void merge(uint32_t index, int32_t token) {
    const int32_t a = pairs_[index].left, b = pairs_[index].right;
    const std::vector<uint32_t> places = std::move(pairs_[index].words);
    pairs_[index].words.clear();
    for (const uint32_t place : places) {
      Word& word = words_[place];
      int32_t* const ids = ids_.data() + word.begin;
      uint32_t size = 0;
      for (uint32_t i = 0; i < word.length; ++i) {
        if (ids[i] != a || i + 1 == word.length || ids[i + 1] != b) {
          ids[size++] = ids[i];
          continue;
        }
        shrink(a, b, word.count);
        if (size > 0) {
          shrink(ids[size - 1], a, word.count);
          grow(ids[size - 1], token, place);
        }
        if (i + 2 < word.length) {
          shrink(b, ids[i + 2], word.count);
          grow(token, ids[i + 2], place);
        }
        ids[size++] = token;
        ++i;
      }
      word.length = size;
    }
  }

 private:
  struct Word {
    size_t begin;  // in ids_
    uint32_t length;
    int64_t count;
  };

  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  void shrink(int32_t left, int32_t right, int64_t count) { pairs_[index_.at(key(left, right))].count -= count; }
  void grow(int32_t left, int32_t right, uint32_t place) {
    const auto [it, fresh] = index_.try_emplace(key(left, right), static_cast<uint32_t>(pairs_.size()));
    if (fresh) pairs_.push_back({left, right});
    Pair& pair = pairs_[it->second];
    pair.count += words_[place].count;
    if (pair.words.empty() || pair.words.back() != place) pair.words.push_back(place);
    if (!pair.touched) grown_.push_back(it->second);
    pair.touched = true;
  }

  struct KeyHash {
    size_t operator()(uint64_t x) const {
      x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;  // splitmix64's finalizer
      x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
      return x ^ (x >> 31);
    }
  };

  std::vector<int32_t> ids_;
  std::vector<Word> words_;
  std::vector<Pair> pairs_;
  std::unordered_map<uint64_t, uint32_t, KeyHash> index_;
  std::vector<uint32_t> grown_;
};

// A pair as it was counted when it came into the heap.
struct CountedPair {
  int64_t count;
  int32_t left, right;
  uint32_t index;
  // The heap gives the largest: most often, then lowest ids.
  bool operator<(const CountedPair& other) const {
    if (count != other.count) return count < other.count;
    return left != other.left ? left > other.left : right > other.right;
  }
};

}  // namespace

void BpeTrainerConfig::validate() const {
  std::vector<std::string> faults;
  const int64_t least = 256 + static_cast<int64_t>(special_tokens.size()), most = int64_t{1} << 24;
  if (vocab_size < least || vocab_size > most) {
    faults.push_back(fmt::format("the vocabulary size is {}, expected {} (256 bytes and {} special token{}) to {}",
                                 vocab_size, least, special_tokens.size(), special_tokens.size() == 1 ? "" : "s",
                                 most));
  }
  if (min_frequency < 1) faults.push_back(fmt::format("the least frequency is {}, expected 1 or more", min_frequency));
  std::unordered_set<std::string_view> seen;
  for (const std::string& token : special_tokens) {
    const auto wrong = [&](std::string_view what) {
      faults.push_back(fmt::format("the special token '{}' {}", printable(token), what));
    };
    if (token.empty()) wrong("is empty");
    if (token.size() > kMaxWordBytes) wrong(fmt::format("has more than {} bytes", kMaxWordBytes));
    if (find_invalid_utf8(token) != std::string_view::npos) {
      wrong("is not UTF-8");
    } else if (!token.empty() && decode_utf8(token, 0).length == token.size()) {
      wrong("is a single character, which may stand for a byte");
    }
    if (!seen.insert(token).second) wrong("is given twice");
  }
  GRAFT_CHECK(faults.empty(), "{}{}", faults.size() == 1 ? "" : fmt::format("{} faults:\n  ", faults.size()),
              fmt::join(faults, "\n  "));
}

BpeTrainer::BpeTrainer(BpeTrainerConfig config) : config_(std::move(config)) { config_.validate(); }

void BpeTrainer::add(std::string_view text) {
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    fail_hint("convert it to UTF-8", "a text is not UTF-8 at byte {} ('{}')", bad, printable(text.substr(bad, 8)));
  }
  static const SplitScanner scanner = *SplitScanner::for_pattern(kGpt2Pattern);
  num_bytes_ += static_cast<int64_t>(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t end = scanner.match_end(text, i);
    for (size_t from = i; from < end; from += kMaxWordBytes) {
      const std::string_view word = text.substr(from, std::min(kMaxWordBytes, end - from));
      if (const auto known = words_.find(word); known != words_.end()) {
        ++known->second;
      } else {
        words_.emplace(word, 1);
      }
    }
    i = end;
  }
}

LearnedBpe BpeTrainer::train() const {
  LearnedBpe out;
  out.num_special = static_cast<int64_t>(config_.special_tokens.size());
  out.tokens = config_.special_tokens;
  std::array<int32_t, 256> id_of_byte{};
  std::unordered_map<std::string, int32_t> id_of;
  // Special tokens are sought as they would come out of a merge.
  for (const std::string& token : out.tokens) id_of.emplace(token, -1);
  for (const uint8_t byte : bytes_by_char()) {
    id_of_byte[byte] = static_cast<int32_t>(out.tokens.size());
    out.tokens.emplace_back(1, static_cast<char>(byte));
  }

  PairCounts pairs;
  for (const auto& [word, count] : words_) pairs.add_word(word, id_of_byte, count);
  std::priority_queue<CountedPair> heap;
  const auto push = [&](uint32_t index) {
    const PairCounts::Pair& pair = pairs.pair(index);
    if (pair.count >= config_.min_frequency) heap.push({pair.count, pair.left, pair.right, index});
  };
  pairs.take_grown(push);

  std::unordered_set<uint32_t> merged;
  while (static_cast<int64_t>(out.tokens.size()) < config_.vocab_size && !heap.empty()) {
    const CountedPair best = heap.top();
    heap.pop();
    if (const int64_t now = pairs.pair(best.index).count; now != best.count) {
      if (now > 0 && now < best.count) push(best.index);  // else a later entry has the present count
      continue;
    }
    const std::string joined = out.tokens[static_cast<size_t>(best.left)] + out.tokens[static_cast<size_t>(best.right)];
    const auto [it, fresh] = id_of.try_emplace(in_byte_chars(joined), static_cast<int32_t>(out.tokens.size()));
    if (it->second < 0) {
      pairs.forget(best.index);
      continue;
    }
    if (fresh) out.tokens.push_back(joined);
    // A pair may come again after its merge, where another merge makes one of its tokens; the merge that is there already joins it.
    if (merged.insert(best.index).second) out.merges.emplace_back(best.left, best.right);
    pairs.merge(best.index, it->second);
    pairs.take_grown(push);
  }
  out.num_text_tokens = pairs.num_tokens();
  return out;
}

std::string LearnedBpe::tokenizer_json() const {
  Json added = Json::array(), vocab = Json::object(), pairs = Json::array();
  std::vector<std::string> written;
  written.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    const bool special = static_cast<int64_t>(id) < num_special;
    written.push_back(special ? tokens[id] : in_byte_chars(tokens[id]));
    if (special) {
      added.push_back(Json{{"id", id},
                           {"content", tokens[id]},
                           {"single_word", false},
                           {"lstrip", false},
                           {"rstrip", false},
                           {"normalized", false},
                           {"special", true}});
    }
  }
  // An ordered_json looks through all keys for each new one; the pairs are made in one go.
  auto& entries = vocab.get_ref<Json::object_t&>();
  entries.reserve(written.size());
  for (size_t id = 0; id < written.size(); ++id) entries.emplace_back(written[id], id);
  for (const auto& [left, right] : merges) {
    pairs.push_back(written[static_cast<size_t>(left)] + " " + written[static_cast<size_t>(right)]);
  }
  const auto byte_level = [](bool prefix) {
    return Json{{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", true}};
  };
  const Json file = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", std::move(added)},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level(false)},
                     {"post_processor", nullptr},
                     {"decoder", byte_level(true)},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", false},
                       {"vocab", std::move(vocab)},
                       {"merges", std::move(pairs)}}}};
  return file.dump(1) + "\n";
}

}  // namespace graft
