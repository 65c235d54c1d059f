#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// The parts between separators; empty parts are kept, an empty text has none.
inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
    if (text.empty()) parts.push_back(text);
  }
  return parts;
}

// Letters to insert, remove or exchange to turn a into b (Levenshtein 1966), for "did you mean …". Each at most 100
// bytes long counts; longer texts are cut.
inline size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, 100);
  b = b.substr(0, 100);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// The known name nearest to a wrong one, or an empty text where none is near (more than a third of its letters differ).
template <typename Names>
std::string nearest_name(std::string_view wrong, const Names& names) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, wrong.size() / 3) + 1;
  for (const auto& name : names) {
    const size_t distance = edit_distance(wrong, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(name);
    }
  }
  return best;
}

}  // namespace graft
