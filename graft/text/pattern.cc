#include "graft/text/pattern.h"

namespace graft {

Pattern Pattern::string(std::string literal) {
  Pattern pattern;
  pattern.literal_ = std::move(literal);
  return pattern;
}

Pattern Pattern::regex(std::string_view text, std::string_view where) {
  Pattern pattern;
  pattern.scanner_ = SplitScanner::for_pattern(text);
  if (!pattern.scanner_) pattern.regex_.emplace(text, where);
  return pattern;
}

Pattern Pattern::from_json(const JsonField& field) {
  if (field.value().is_string()) return string(field.as_string());  // tokenizers before 0.9
  if (const auto literal = field.find("String")) {
    // Between any two characters there is nothing, so replacing nothing would never end.
    if (literal->as_string().empty()) fail("{} is empty, expected at least one character", literal->where());
    return string(literal->as_string());
  }
  if (const auto found = field.find("Regex")) return regex(found->as_string(), found->where());
  fail("{} has neither 'String' nor 'Regex'", field.where());
}

void Pattern::find(std::string_view text, std::vector<Match>& out) const {
  if (scanner_) return scanner_->find(text, out);
  if (regex_) return regex_->find(text, out);
  size_t from = 0;
  while (!literal_.empty()) {
    const size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) break;
    if (at > from) out.push_back({from, at, false});
    from = at + literal_.size();
    out.push_back({at, from, true});
  }
  if (from < text.size()) out.push_back({from, text.size(), false});
}

}  // namespace graft
