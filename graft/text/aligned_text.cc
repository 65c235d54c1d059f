#include "graft/text/aligned_text.h"

namespace graft {

Span AlignedText::span(size_t byte) const {
  if (changed_) return spans_[byte];
  size_t begin = byte, end = byte + 1;
  while (begin > 0 && is_utf8_continuation(view_[begin])) --begin;
  while (end < view_.size() && is_utf8_continuation(view_[end])) ++end;
  return {shift_ + static_cast<uint32_t>(begin), shift_ + static_cast<uint32_t>(end)};
}

void AlignedText::append_spans(size_t begin, size_t end, std::vector<Span>& out) const {
  if (changed_) {
    out.insert(out.end(), spans_.begin() + static_cast<std::ptrdiff_t>(begin),
               spans_.begin() + static_cast<std::ptrdiff_t>(end));
    return;
  }
  for (size_t i = begin; i < end;) {
    const uint32_t length = decode_utf8(view_, i).length;
    const uint32_t from = shift_ + static_cast<uint32_t>(i);
    for (uint32_t k = 0; k < length; ++k) out.push_back({from, from + length});
    i += length;
  }
}

void AlignedText::prepend(std::string_view prefix) {
  Builder out(*this);
  out.put(prefix, span(0));
  out.keep(0, text().size());
  out.finish();
}

// A character that replaces takes the span of what it replaces; an inserted one that of the byte before it.
void AlignedText::Builder::apply(size_t begin, size_t end, const std::vector<ChangedChar>& chars) {
  const std::string_view old = text_.text();
  size_t at = begin;
  std::string written;
  for (const auto& [code, change] : chars) {
    Span where{text_.shift_, text_.shift_};
    if (change > 0) {
      if (at > 0) where = text_.span(at - 1);
    } else {
      where = text_.span(at < end ? at : end - 1);
      for (int removed = change; removed <= 0 && at < end; ++removed) at += decode_utf8(old, at).length;
    }
    written.clear();
    append_utf8(written, code);
    put(written, where);
  }
}

void AlignedText::Builder::finish() {
  text_.owned_ = std::move(out_);
  text_.spans_ = std::move(spans_);
  text_.changed_ = true;
}

AlignedText Piece::copy() const {
  std::vector<Span> spans;
  spans.reserve(end - begin);
  source->append_spans(begin, end, spans);
  return AlignedText(std::string(text()), std::move(spans), shift);
}

}  // namespace graft
