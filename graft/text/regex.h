#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// A range of a text, and whether a pattern matched it. Lists of them cover a text without gaps.
struct Match {
  size_t begin, end;
  bool matched;
};

// A pattern of a tokenizer.json, written for Oniguruma, run by PCRE2 (JIT where there is one). What the two read
// differently
// (\s, \w, \h, ^ and $, {,n}, …) is rewritten; what cannot be is refused when compiling. Immutable; safe to share.
class Regex {
 public:
  // Throws Error "WHERE: pattern '…': …" when it does not compile.
  Regex(std::string_view pattern, std::string_view where);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // All matches of valid UTF-8 and what lies between them. Throws Error when a match takes too many steps.
  void find(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The pattern in PCRE2's words.
std::string oniguruma_to_pcre2(std::string_view pattern, std::string_view where);

}  // namespace graft
