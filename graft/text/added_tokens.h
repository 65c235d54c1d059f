#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graft/text/json_field.h"
#include "graft/text/normalizer.h"

namespace graft {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  std::string shown = {};    // what is sought and what decoding gives: content, normalized if the token asks for it
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and behind it
  bool normalized = true;    // sought in the normalized text
  bool special = false;

  // One entry of "added_tokens", or a token object of tokenizer_config.json ("id" may be missing there).
  static AddedToken from_json(const JsonField& field);
};

// Tokens that are cut out of the text before everything else: leftmost, the longest of those that begin there.
class AddedTokens {
 public:
  struct Section {
    size_t begin, end;
    int32_t id;  // -1: text
  };

  // Ignores a token without characters and one with the content of an earlier one.
  void add(AddedToken token);
  // Once all are there: the strings to look for, normalized where the token asks for it.
  void build(const Normalizer& normalizer, std::string_view where);

  // Cuts valid UTF-8 into sections. `normalized`: the pass over normalized text. Without `parse_special` special tokens
  // are text; so is one for which `refuse(begin, end)` holds.
  using Refuse = std::function<bool(size_t, size_t)>;
  void find(std::string_view text, bool normalized, bool parse_special, std::vector<Section>& out,
            const Refuse& refuse = {}) const;

  const AddedToken* by_id(int32_t id) const;
  const AddedToken* by_content(std::string_view content) const;
  bool is_special_content(std::string_view content) const { return special_.contains(std::string(content)); }
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  struct Node {
    int32_t token = -1;
    std::vector<std::pair<uint8_t, uint32_t>> children;
  };
  struct Trie {
    std::vector<Node> nodes{Node{}};
    std::array<uint32_t, 256> roots{};  // child of the root, 0 if none
    void insert(std::string_view text, int32_t token);
    bool empty() const { return nodes.size() == 1; }
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_set<std::string> special_;
  Trie tries_[2];  // raw, normalized
};

}  // namespace graft
