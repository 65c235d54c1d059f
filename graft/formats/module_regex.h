#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace graft {

// A regular expression from a file or a user, matched against names of modules. Matching is bounded: a pattern that
// would take exponential time is an Error, not a hang.
class ModuleRegex {
 public:
  // Throws Error "WHERE: '…' is not a regular expression: …".
  ModuleRegex(std::string_view pattern, std::string_view where);
  // Python's re.fullmatch. Error if the bound is reached.
  bool full_match(std::string_view text) const;
  // Group 1 of a match at the start of the text (Python's re.match); empty if there is none.
  std::string first_group(std::string_view text) const;

 private:
  int match(std::string_view text, unsigned options, std::string* group) const;
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace graft
