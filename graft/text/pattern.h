#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/text/json_field.h"
#include "graft/text/regex.h"
#include "graft/text/split_scanner.h"

namespace graft {

// {"String": "…"} or {"Regex": "…"} as normalizers, pre-tokenizers and decoders have it.
class Pattern {
 public:
  static Pattern from_json(const JsonField& field);
  static Pattern string(std::string literal);
  static Pattern regex(std::string_view pattern, std::string_view where);

  void find(std::string_view text, std::vector<Match>& out) const;

 private:
  std::string literal_;  // used when there is neither of the two
  std::optional<Regex> regex_;
  std::optional<SplitScanner> scanner_;
};

}  // namespace graft
