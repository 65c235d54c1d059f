#include "graft/text/bpe.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <queue>

#include "graft/text/normalizer.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

constexpr char32_t kSpaceMark = 0x2581;

uint64_t mix(uint64_t x) {  // splitmix64's finalizer
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

uint64_t hash_bytes(std::string_view text) {
  uint64_t hash = text.size() * 0x9E3779B97F4A7C15ull;
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    hash = mix(hash ^ word);
  }
  if (i < text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + i, text.size() - i);
    hash = mix(hash ^ word ^ 0xFF);
  }
  return hash;
}

size_t power_of_two(size_t least) {
  size_t size = 16;
  while (size < least) size *= 2;
  return size;
}

// Tokens of the words seen lately, per thread, so that no lock is needed. Words come again: most of a text is found
// here.
struct WordCache {
  static constexpr size_t kEntries = size_t{1} << 14, kMaxBytes = 32, kMaxTokens = 8;
  struct Entry {
    uint64_t hash = 0;
    uint8_t length = 0, count = 0;  // length 0: free
    char word[kMaxBytes] = {};
    uint8_t lengths[kMaxTokens] = {};
    int32_t ids[kMaxTokens] = {};
  };
  uint64_t owner = 0;
  std::vector<Entry> entries;

  Entry& entry(uint64_t serial, uint64_t hash) {
    if (owner != serial) {
      entries.assign(kEntries, Entry());
      owner = serial;
    }
    return entries[hash >> 50];
  }
};
static_assert(WordCache::kEntries == size_t{1} << (64 - 50));

}  // namespace

Vocabulary Vocabulary::from_json(const JsonField& field) {
  if (!field.value().is_object()) {
    fail("{} is {}, expected an object of token: id", field.where(), json_kind(field.value()));
  }
  const auto& object = field.value().get_ref<const Json::object_t&>();
  Vocabulary out;
  // A table is indexed by id, so an id may not be far beyond what the number of tokens explains.
  const uint64_t limit = 16 * object.size() + (uint64_t{1} << 16);
  uint64_t end = 0;
  size_t bytes = 0;
  for (const auto& [token, id] : object) {
    if (!id.is_number_integer() || (!id.is_number_unsigned() && id.get<int64_t>() < 0)) {
      fail("{}: the id of '{}' is {}, expected an integer of 0 or more", field.where(), printable(token),
           json_kind(id));
    }
    if (id.get<uint64_t>() >= limit) {
      fail("{}: the id of '{}' is {}, far beyond the {} tokens there are", field.where(), printable(token),
           id.get<uint64_t>(), object.size());
    }
    end = std::max(end, id.get<uint64_t>() + 1);
    bytes += token.size();
  }
  if (bytes > UINT32_MAX) fail("{}: tokens of {} bytes, expected less than 4 GB", field.where(), bytes);
  out.text_.reserve(bytes);
  out.by_id_.resize(end);
  out.slots_.assign(power_of_two(2 * object.size()), -1);
  for (const auto& [token, value] : object) {
    const auto id = value.get<size_t>();
    Entry& entry = out.by_id_[id];
    if (entry.used) {
      fail("{}: the tokens '{}' and '{}' both have the id {}", field.where(), printable(out.view(entry)),
           printable(token), id);
    }
    entry = {static_cast<uint32_t>(out.text_.size()), static_cast<uint32_t>(token.size()), true};
    out.text_ += token;
    size_t slot = hash_bytes(token) & (out.slots_.size() - 1);
    while (out.slots_[slot] >= 0) slot = (slot + 1) & (out.slots_.size() - 1);
    out.slots_[slot] = static_cast<int32_t>(id);
  }
  return out;
}

int32_t Vocabulary::find(std::string_view token) const {
  for (size_t slot = hash_bytes(token) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    const int32_t id = slots_[slot];
    if (id < 0 || view(by_id_[static_cast<size_t>(id)]) == token) return id;
  }
}

std::optional<std::string_view> Vocabulary::token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= by_id_.size() || !by_id_[static_cast<size_t>(id)].used) return std::nullopt;
  return view(by_id_[static_cast<size_t>(id)]);
}

Bpe::Bpe(const JsonField& model) : file_(model.file()) {
  vocabulary_ = Vocabulary::from_json(model.at("vocab"));
  prefix_ = model.string_or("continuing_subword_prefix", "");
  suffix_ = model.string_or("end_of_word_suffix", "");
  fuse_unk_ = model.bool_or("fuse_unk", false);
  byte_fallback_ = model.bool_or("byte_fallback", false);
  ignore_merges_ = model.bool_or("ignore_merges", false);
  if (const auto unk = model.find("unk_token")) {
    has_unk_ = true;
    unk_token_ = unk->as_string();
    unk_id_ = vocabulary_.find(unk_token_);
  }
  if (const auto dropout = model.find("dropout"); dropout && dropout->value() != 0) {
    fail_hint("set it to null: ids must not depend on chance", "{} is {}, BPE dropout is not supported",
              dropout->where(), json_kind(dropout->value()));
  }

  takes_bytes_ = prefix_.empty() && suffix_.empty();
  for (uint32_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocabulary_.find(byte_level_char(static_cast<uint8_t>(byte)));
    takes_bytes_ = takes_bytes_ && byte_ids_[byte] >= 0;
    fallback_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
  }
  ascii_ids_.fill(-1);
  for (int64_t id = 0; id < vocabulary_.end_id(); ++id) {
    const auto token = vocabulary_.token(static_cast<int32_t>(id));
    if (!token || token->empty()) continue;
    const DecodedChar c = decode_utf8(*token, 0);
    if (c.length != token->size()) continue;
    if (c.code < 128) {
      ascii_ids_[c.code] = static_cast<int32_t>(id);
    } else {
      char_ids_.emplace(c.code, static_cast<int32_t>(id));
    }
  }
  const auto mark = char_ids_.find(kSpaceMark);
  space_mark_id_ = mark == char_ids_.end() ? -1 : mark->second;
  read_merges(model.at("merges"));
  static std::atomic<uint64_t> models{0};
  serial_ = ++models;
}

void Bpe::add_merge(int32_t left, int32_t right, uint32_t rank, int32_t result) {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t slot = mix(pair) >> merge_shift_;
  while (merges_[slot].pair != kFree && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
  merges_[slot] = {pair, rank, result};  // of equal merges the last counts, as in the reference
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  for (size_t slot = mix(pair) >> merge_shift_;; slot = (slot + 1) & (merges_.size() - 1)) {
    const Merge& merge = merges_[slot];
    if (merge.pair == pair) return &merge;
    if (merge.pair == kFree) return nullptr;
  }
}

// Merges are "a b" or ["a", "b"]; the result is a and b joined (b without continuing_subword_prefix).
void Bpe::read_merges(const JsonField& field) {
  const size_t count = field.array_size();
  const size_t size = power_of_two(2 * count);
  merges_.assign(size, Merge{kFree, 0, 0});
  merge_shift_ = 64;
  for (size_t s = size; s > 1; s /= 2) --merge_shift_;

  cuts_ = !ignore_merges_ && prefix_.empty() && suffix_.empty();
  std::string joined;
  for (size_t i = 0; i < count; ++i) {
    const Json& merge = field.value()[i];
    const auto refuse = [&](std::string_view what) {
      fail("{}[{}] is {}, {}", field.where(), i, json_kind(merge), what);
    };
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        refuse("expected two tokens with one space between them");
      }
      left = text.substr(0, space), right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>(), right = merge[1].get_ref<const std::string&>();
    } else if (merge.is_array() && merge.size() == 1) {
      fail("{}[{}] has one part, {}, expected two tokens", field.where(), i, json_kind(merge[0]));
    } else {
      refuse("expected two tokens, \"a b\" or [\"a\", \"b\"]");
    }
    const auto id_of = [&](std::string_view token, std::string_view what) {
      const int32_t id = vocabulary_.find(token);
      if (id < 0) {
        fail("{}[{}] ('{}' with '{}'): the {} '{}' is not in the vocabulary", field.where(), i, printable(left),
             printable(right), what, printable(token));
      }
      return id;
    };
    const int32_t left_id = id_of(left, "token"), right_id = id_of(right, "token");
    if (left.empty() || right.empty() || right.size() < prefix_.size()) {
      refuse("expected two tokens that are not empty");
    }
    joined = left;
    joined += right.substr(prefix_.size());
    add_merge(left_id, right_id, static_cast<uint32_t>(i), id_of(joined, "result"));
    const size_t last = joint_char(decode_utf8(left, previous_char(left, left.size())).code);
    const size_t next = joint_char(decode_utf8(right, 0).code);
    if (last < kJointChars && next < kJointChars) joints_[last][next] = true;
  }
}

// Row or column of joints_; kJointChars for a character next to which nothing is cut, among them those without a token.
size_t Bpe::joint_char(char32_t code) const {
  if (code < 128) return ascii_ids_[code] >= 0 ? code : kJointChars;
  return code == kSpaceMark && space_mark_id_ >= 0 ? 128 : kJointChars;
}

// The token of one character: `text` with prefix and suffix where they belong, its code where they do not.
int32_t Bpe::char_id(char32_t code, std::string_view text) const {
  if (!prefix_.empty() || !suffix_.empty()) return vocabulary_.find(text);
  if (code < 128) return ascii_ids_[code];
  const auto found = char_ids_.find(code);
  return found == char_ids_.end() ? -1 : found->second;
}

void Bpe::first_symbols(std::string_view word, bool bytes, std::vector<Symbol>& out) const {
  if (bytes) {
    for (const char c : word) out.push_back({byte_ids_[static_cast<uint8_t>(c)], 1});
    return;
  }
  std::string decorated;
  uint32_t unknown = 0;  // bytes waiting to become one unk token
  const auto flush = [&] {
    if (unknown > 0) out.push_back({unk_id_, unknown});
    unknown = 0;
  };
  for (size_t i = 0; i < word.size();) {
    const DecodedChar c = decode_utf8(word, i);
    std::string_view text = word.substr(i, c.length);
    if (const bool last = i + c.length == word.size(); (i > 0 && !prefix_.empty()) || (last && !suffix_.empty())) {
      decorated = (i > 0 ? prefix_ : std::string()) + std::string(text) + (last ? suffix_ : std::string());
      text = decorated;
    }
    const int32_t id = char_id(c.code, text);
    if (id >= 0) {
      flush();
      out.push_back({id, c.length});
    } else if (byte_fallback_ && std::all_of(text.begin(), text.end(),
                                             [&](char b) { return fallback_ids_[static_cast<uint8_t>(b)] >= 0; })) {
      // A waiting unk token comes after these bytes: the reference does not flush it here.
      for (const char b : text) out.push_back({fallback_ids_[static_cast<uint8_t>(b)], 1});
    } else if (has_unk_) {
      if (unk_id_ < 0) {
        fail("{}: model.unk_token '{}' is not in the vocabulary, and a text needs it", file_, printable(unk_token_));
      }
      if (!fuse_unk_) flush();
      unknown += c.length;
    }  // without an unk token the reference drops the character
    i += c.length;
  }
  flush();
}

void Bpe::encode(std::string_view piece, bool bytes, std::vector<Symbol>& out) const {
  if (bytes || !cuts_) return encode_word(piece, bytes, out);
  // Between two characters that no merge joins the piece falls apart; its parts are words that come again.
  size_t begin = 0, previous = kJointChars;
  for (size_t i = 0; i < piece.size();) {
    const DecodedChar c = decode_utf8(piece, i);
    const size_t next = joint_char(c.code);
    if (previous < kJointChars && next < kJointChars && !joints_[previous][next]) {
      encode_word(piece.substr(begin, i - begin), false, out);
      begin = i;
    }
    previous = next;
    i += c.length;
  }
  if (begin < piece.size()) encode_word(piece.substr(begin), false, out);
}

void Bpe::encode_word(std::string_view word, bool bytes, std::vector<Symbol>& out) const {
  if (word.size() > WordCache::kMaxBytes) return encode_uncached(word, bytes, out);
  if (word.empty()) return;
  thread_local WordCache cache;
  // One model may be asked for a word in both readings.
  const uint64_t hash = hash_bytes(word) ^ (bytes ? 0 : 0x8000000000000000ull);
  WordCache::Entry& entry = cache.entry(serial_, hash);
  if (entry.hash == hash && entry.length == word.size() && std::memcmp(entry.word, word.data(), word.size()) == 0) {
    for (size_t i = 0; i < entry.count; ++i) out.push_back({entry.ids[i], entry.lengths[i]});
    return;
  }
  const size_t from = out.size();
  encode_uncached(word, bytes, out);
  const size_t count = out.size() - from;
  if (count > WordCache::kMaxTokens) return;
  entry.hash = hash;
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(count);
  std::memcpy(entry.word, word.data(), word.size());
  for (size_t i = 0; i < count; ++i) {
    entry.ids[i] = out[from + i].id;
    entry.lengths[i] = static_cast<uint8_t>(out[from + i].length);
  }
}

void Bpe::encode_uncached(std::string_view word, bool bytes, std::vector<Symbol>& out) const {
  if (ignore_merges_) {
    std::string written;
    if (bytes) {
      for (const char c : word) written += byte_level_char(static_cast<uint8_t>(c));
    }
    const int32_t id = vocabulary_.find(bytes ? std::string_view(written) : word);
    if (id >= 0) {
      out.push_back({id, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  const size_t from = out.size();
  first_symbols(word, bytes, out);
  constexpr size_t kFew = 48;  // up to here looking at every pair again is faster than a heap
  if (out.size() - from <= kFew) {
    merge_few(out, from);
  } else {
    merge_many(out, from);
  }
}

void Bpe::merge_few(std::vector<Symbol>& symbols, size_t from) const {
  constexpr uint32_t kNone = UINT32_MAX;
  size_t count = symbols.size() - from;
  Symbol* const s = symbols.data() + from;
  std::array<uint32_t, 48> ranks;
  std::array<int32_t, 48> results;
  const auto look = [&](size_t i) {
    const Merge* merge = merge_of(s[i].id, s[i + 1].id);
    ranks[i] = merge == nullptr ? kNone : merge->rank;
    results[i] = merge == nullptr ? -1 : merge->result;
  };
  for (size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNone) break;
    s[best] = {results[best], s[best].length + s[best + 1].length};
    for (size_t i = best + 1; i + 1 < count; ++i) {
      s[i] = s[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
  symbols.resize(from + count);
}

// The same with a heap: n log n for a pre-token of any length.
void Bpe::merge_many(std::vector<Symbol>& symbols, size_t from) const {
  struct Node {
    int32_t previous, next;
  };
  struct Candidate {
    uint32_t rank, at;
    int32_t result;
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const size_t count = symbols.size() - from;
  if (count > INT32_MAX) fail("a pre-token of {} bytes, expected less than 2 GB", count);
  Symbol* const s = symbols.data() + from;
  std::vector<Node> nodes(count);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < count; ++i) {
    nodes[i] = {static_cast<int32_t>(i) - 1, i + 1 < count ? static_cast<int32_t>(i + 1) : -1};
    if (i + 1 == count) break;
    if (const Merge* merge = merge_of(s[i].id, s[i + 1].id)) {
      candidates.push_back({merge->rank, static_cast<uint32_t>(i), merge->result});
    }
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(candidates));
  const auto look = [&](int32_t left, int32_t right) {
    if (const Merge* merge = merge_of(s[left].id, s[right].id)) {
      queue.push({merge->rank, static_cast<uint32_t>(left), merge->result});
    }
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (s[top.at].length == 0 || nodes[top.at].next < 0) continue;  // merged away since
    const auto at = static_cast<int32_t>(top.at);
    const int32_t right = nodes[top.at].next;
    const Merge* merge = merge_of(s[at].id, s[right].id);
    if (merge == nullptr || merge->result != top.result) continue;  // a neighbour has changed since
    s[at] = {top.result, s[at].length + s[right].length};
    s[right].length = 0;
    nodes[static_cast<size_t>(at)].next = nodes[static_cast<size_t>(right)].next;
    if (const int32_t next = nodes[static_cast<size_t>(at)].next; next >= 0) {
      nodes[static_cast<size_t>(next)].previous = at;
      look(at, next);
    }
    if (const int32_t previous = nodes[static_cast<size_t>(at)].previous; previous >= 0) look(previous, at);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

}  // namespace graft
