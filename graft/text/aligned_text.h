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
  Span span(size_t begin, size_t end) const { return {span(begin).begin, span(end - 1).end}; }

  void prepend(std::string_view prefix);  // not empty text only; the prefix stands for the first character
  void append_spans(size_t begin, size_t end, std::vector<Span>& out) const;  // of whole characters

  // Writes a new text from parts of the old one; finish() puts it in its place.
  class Builder {
   public:
    explicit Builder(AlignedText& text) : text_(text) {
      out_.reserve(text.text().size());
      spans_.reserve(text.text().size());
    }
    size_t size() const { return out_.size(); }
    void keep(size_t begin, size_t end) {
      out_.append(text_.text().substr(begin, end - begin));
      text_.append_spans(begin, end, spans_);
    }
    void put(std::string_view content, Span span) {
      out_ += content;
      spans_.resize(out_.size(), span);
    }
    void apply(size_t begin, size_t end, const std::vector<ChangedChar>& chars);  // what became of [begin, end)
    void finish();

   private:
    AlignedText& text_;
    std::string out_;
    std::vector<Span> spans_;
  };

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
