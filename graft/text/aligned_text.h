#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graft/text/unicode.h"

namespace graft {

// [begin, end) in the bytes of the original text.
struct Span {
  uint32_t begin = 0, end = 0;
};

// A piece of text under normalization, each byte with the span of the original text that it stands for. All bytes of a
// character share one span. While nothing is changed, no spans are stored.
class AlignedText {
 public:
  // A view of the original text from byte `shift` on; it must outlive this.
  AlignedText(std::string_view original, uint32_t shift) : view_(original), shift_(shift) {}
  AlignedText(std::string text, std::vector<Span> spans, uint32_t shift)
      : owned_(std::move(text)), spans_(std::move(spans)), shift_(shift), changed_(true) {}

  std::string_view text() const { return changed_ ? std::string_view(owned_) : view_; }
  uint32_t shift() const { return shift_; }  // where the piece began in the original text
  Span span(size_t byte) const;
  // The spans of the non-empty bytes [begin, end) together.
  Span span(size_t begin, size_t end) const {
    return {span(begin).begin, span(end - 1).end};
  }

  void assign(std::string text, std::vector<Span> spans) {
    owned_ = std::move(text);
    spans_ = std::move(spans);
    changed_ = true;
  }
  void prepend(std::string_view prefix);  // not empty text only; the prefix stands for the first character
  void apply(const std::vector<ChangedChar>& chars);

 private:
  std::string_view view_;
  std::string owned_;
  std::vector<Span> spans_;
  uint32_t shift_ = 0;
  bool changed_ = false;
};

// A range of an AlignedText that pre-tokenizers split further.
struct Piece {
  const AlignedText* source;
  uint32_t begin, end;
  uint32_t shift;  // where the piece began in the original text when it was cut out

  std::string_view text() const { return source->text().substr(begin, end - begin); }
  Piece slice(size_t from, size_t to) const {  // not empty, relative to this piece
    const auto at = static_cast<uint32_t>(begin + from);
    return {source, at, static_cast<uint32_t>(begin + to), source->span(at).begin};
  }
  Span span(size_t from, size_t to) const { return source->span(begin + from, begin + to); }
  AlignedText copy() const;
};

}  // namespace graft
