#include "graft/text/aligned_text.h"

namespace graft {

Span AlignedText::span(size_t byte) const {
  if (changed_) return spans_[byte];
  size_t begin = byte, end = byte + 1;
  while (begin > 0 && is_utf8_continuation(view_[begin])) --begin;
  while (end < view_.size() && is_utf8_continuation(view_[end])) ++end;
  return {shift_ + static_cast<uint32_t>(begin), shift_ + static_cast<uint32_t>(end)};
}

void AlignedText::prepend(std::string_view prefix) {
  const std::string_view old = text();
  std::vector<Span> spans(prefix.size(), span(0));
  spans.reserve(prefix.size() + old.size());
  for (size_t i = 0; i < old.size(); ++i) spans.push_back(span(i));
  std::string joined(prefix);
  joined += old;
  assign(std::move(joined), std::move(spans));
}

// A character that replaces takes the span of what it replaces; an inserted one that of the byte before it.
void AlignedText::apply(const std::vector<ChangedChar>& chars) {
  const std::string_view old = text();
  std::string out;
  out.reserve(old.size());
  std::vector<Span> spans;
  spans.reserve(old.size());
  size_t at = 0;  // in `old`
  for (const auto& [code, change] : chars) {
    Span where{shift_, shift_};
    if (change > 0) {
      if (at > 0) where = span(at - 1);
    } else if (at < old.size()) {
      where = span(at);
      for (int removed = change; removed <= 0 && at < old.size(); ++removed) at += decode_utf8(old, at).length;
    } else if (!old.empty()) {
      where = span(old.size() - 1);
    }
    append_utf8(out, code);
    spans.resize(out.size(), where);
  }
  assign(std::move(out), std::move(spans));
}

AlignedText Piece::copy() const {
  std::vector<Span> spans;
  spans.reserve(end - begin);
  for (uint32_t i = begin; i < end; ++i) spans.push_back(source->span(i));
  return AlignedText(std::string(text()), std::move(spans), shift);
}

}  // namespace graft
