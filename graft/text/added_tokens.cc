#include "graft/text/added_tokens.h"

#include <algorithm>

#include "graft/text/unicode.h"

namespace graft {

AddedToken AddedToken::from_json(const JsonField& field) {
  AddedToken token;
  if (const auto id = field.find("id")) token.id = static_cast<int32_t>(id->as_integer(0, INT32_MAX - 1));
  token.content = field.at("content").as_string();
  token.single_word = field.bool_or("single_word", false);
  token.lstrip = field.bool_or("lstrip", false);
  token.rstrip = field.bool_or("rstrip", false);
  token.special = field.bool_or("special", false);
  token.normalized = field.bool_or("normalized", !token.special);
  return token;
}

void AddedTokens::add(AddedToken token) {
  if (token.content.empty() || by_content_.contains(token.content)) return;
  by_content_.emplace(token.content, tokens_.size());
  by_id_.emplace(token.id, tokens_.size());
  if (token.special) special_.insert(token.content);
  tokens_.push_back(std::move(token));
}

void AddedTokens::Trie::insert(std::string_view text, int32_t token) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = 0;
    if (node == 0) {
      next = roots[byte];
    } else {
      for (const auto& [key, child] : nodes[node].children) {
        if (key == byte) next = child;
      }
    }
    if (next == 0) {
      next = static_cast<uint32_t>(nodes.size());
      if (node == 0) {
        roots[byte] = next;
      } else {
        nodes[node].children.emplace_back(byte, next);
      }
      nodes.emplace_back();
    }
    node = next;
  }
  if (nodes[node].token < 0) nodes[node].token = token;
}

void AddedTokens::build(const Normalizer& normalizer, std::string_view where) {
  constexpr size_t kMaxBytes = 2048;  // bounds the work at each byte of a text
  for (size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    token.shown = token.content;
    if (token.normalized && !normalizer.empty()) {
      AlignedText text(token.content, 0);
      normalizer.normalize(text, false);
      token.shown = text.text();
    }
    if (token.shown.size() > kMaxBytes) {
      fail("{}: the added token '{}' has {} bytes, expected at most {}", where, printable(token.shown, 40),
           token.shown.size(), kMaxBytes);
    }
    if (!token.shown.empty()) tries_[token.normalized ? 1 : 0].insert(token.shown, static_cast<int32_t>(i));
  }
}

const AddedToken* AddedTokens::by_id(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::by_content(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

void AddedTokens::find(std::string_view text, bool normalized, bool parse_special, std::vector<Section>& out,
                       const Refuse& refuse) const {
  const Trie& trie = tries_[normalized ? 1 : 0];
  size_t covered = 0;
  size_t i = trie.empty() ? text.size() : 0;
  while (i < text.size()) {
    uint32_t node = trie.roots[static_cast<uint8_t>(text[i])];
    if (node == 0) {
      ++i;
      continue;
    }
    int32_t best = -1;
    size_t best_end = i;
    for (size_t k = i + 1;; ++k) {
      if (trie.nodes[node].token >= 0) best = trie.nodes[node].token, best_end = k;
      if (k >= text.size()) break;
      const auto byte = static_cast<uint8_t>(text[k]);
      const auto& children = trie.nodes[node].children;
      const auto child =
          std::find_if(children.begin(), children.end(), [byte](const auto& c) { return c.first == byte; });
      if (child == children.end()) break;
      node = child->second;
    }
    if (best < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(best)];
    size_t begin = i, end = best_end;
    if (token.special && parse_special && refuse && refuse(begin, end)) {
      ++i;  // nothing was matched: another token may begin inside
      continue;
    }
    i = best_end;  // also where the match is vetoed: matches do not overlap
    if (token.special && !parse_special) continue;
    if (token.single_word) {
      if (begin > 0 && is_word_char(decode_utf8(text, previous_char(text, begin)).code)) continue;
      if (end < text.size() && is_word_char(decode_utf8(text, end).code)) continue;
    }
    while (token.lstrip && begin > covered) {
      const size_t at = previous_char(text, begin);
      if (!is_space_char(decode_utf8(text, at).code)) break;
      begin = at;
    }
    if (token.lstrip) begin = std::max(begin, covered);
    while (token.rstrip && end < text.size()) {
      const DecodedChar c = decode_utf8(text, end);
      if (!is_space_char(c.code)) break;
      end += c.length;
    }
    // A token of white space may lie in what the last one has stripped; the reference gives both, and so does this.
    if (covered < begin) out.push_back({covered, begin, -1});
    if (begin < end) out.push_back({begin, end, token.id});
    covered = end;
  }
  if (covered < text.size()) out.push_back({covered, text.size(), -1});
}

}  // namespace graft
