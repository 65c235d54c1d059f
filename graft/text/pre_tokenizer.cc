#include "graft/text/pre_tokenizer.h"

#include <algorithm>
#include <functional>

#include "graft/text/normalizer.h"
#include "graft/text/pattern.h"

namespace graft {
namespace {

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior read_behavior(const JsonField& field) {
  const std::string& name = field.as_string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  fail("{} is '{}', expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", field.where(),
       printable(name));
}

// Joins and drops matches in place as the behavior says.
void apply_behavior(Behavior behavior, std::vector<Match>& matches) {
  size_t count = 0;
  bool previous = false;
  switch (behavior) {
    case Behavior::kIsolated: return;
    case Behavior::kRemoved: std::erase_if(matches, [](const Match& m) { return m.matched; }); return;
    case Behavior::kContiguous:
    case Behavior::kMergedWithPrevious:
      for (const Match& m : std::vector<Match>(matches)) {
        const bool join = behavior == Behavior::kContiguous ? m.matched == previous : m.matched && !previous;
        if (join && count > 0) {
          matches[count - 1].end = m.end;
        } else {
          matches[count++] = m;
        }
        previous = m.matched;
      }
      matches.resize(count);
      return;
    case Behavior::kMergedWithNext: {
      std::vector<Match> joined;
      for (auto m = matches.rbegin(); m != matches.rend(); ++m) {
        if (m->matched && !previous && !joined.empty()) {
          joined.back().begin = m->begin;
        } else {
          joined.push_back(*m);
        }
        previous = m->matched;
      }
      std::reverse(joined.begin(), joined.end());
      matches = std::move(joined);
      return;
    }
  }
}

// Every character for which is_match(code) holds is a match of its own.
template <typename Predicate>
void find_chars(std::string_view text, std::vector<Match>& out, Predicate&& is_match) {
  size_t covered = 0;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_utf8(text, i);
    const size_t end = i + c.length;
    if (is_match(c.code)) {
      if (covered < i) out.push_back({covered, i, false});
      out.push_back({i, end, true});
      covered = end;
    }
    i = end;
  }
  if (covered < text.size()) out.push_back({covered, text.size(), false});
}

Piece whole(const AlignedText& text) { return {&text, 0, static_cast<uint32_t>(text.text().size()), text.shift()}; }

using Find = std::function<void(std::string_view, std::vector<Match>&)>;

}  // namespace

struct PreTokenizer::Step {
  // Rewrites a piece before it is cut: a prefix space, ▁ for spaces. Null: nothing. Returns the piece to cut.
  std::function<Piece(const Piece&, std::deque<AlignedText>&, bool skip_prefix)> rewrite;
  Find find;  // null: no cut
  Behavior behavior = Behavior::kIsolated;
  bool byte_level = false;  // writes bytes as visible characters at the end
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

PreTokenizer::PreTokenizer(const std::optional<JsonField>& field) {
  if (field) add(*field);
}

PrependScheme read_prepend_scheme(const JsonField& field) {
  if (const auto scheme = field.find("prepend_scheme")) {
    const std::string& name = scheme->as_string();
    if (name == "always") return PrependScheme::kAlways;
    if (name == "first") return PrependScheme::kFirst;
    if (name == "never") return PrependScheme::kNever;
    fail("{} is '{}', expected always, first or never", scheme->where(), printable(name));
  }
  return field.bool_or("add_prefix_space", true) ? PrependScheme::kAlways : PrependScheme::kNever;
}

std::string read_replacement(const JsonField& field) {
  std::string replacement = field.string_or("replacement", "\u2581");
  if (replacement.empty() || decode_utf8(replacement, 0).length != replacement.size()) {
    fail("{}: replacement is '{}', expected one character", field.where(), printable(replacement));
  }
  return replacement;
}

void PreTokenizer::add(const JsonField& field) {
  const std::string type = field.type();
  Step step;
  if (type == "Sequence") {
    const JsonField list = field.at("pretokenizers");
    for (size_t i = 0; i < list.array_size(); ++i) add(list.element(i));
    return;
  }
  if (type == "ByteLevel") {
    step.byte_level = true;
    if (field.bool_or("add_prefix_space", true)) {
      step.rewrite = [](const Piece& piece, std::deque<AlignedText>& arena, bool skip_prefix) {
        if (skip_prefix || piece.text().starts_with(' ')) return piece;
        arena.push_back(piece.copy());
        arena.back().prepend(" ");
        return whole(arena.back());
      };
    }
    if (field.bool_or("use_regex", true)) {
      step.find = [scanner = *SplitScanner::for_pattern(kGpt2Pattern)](std::string_view text, std::vector<Match>& out) {
        scanner.find(text, out);
      };
    }
  } else if (type == "Split") {
    auto pattern = std::make_shared<Pattern>(Pattern::from_json(field.at("pattern")));
    step.behavior = read_behavior(field.at("behavior"));
    const bool invert = field.bool_or("invert", false);
    step.find = [pattern, invert](std::string_view text, std::vector<Match>& out) {
      pattern->find(text, out);
      if (invert) {
        for (Match& m : out) m.matched = !m.matched;
      }
    };
  } else if (type == "Metaspace") {
    const std::string replacement = read_replacement(field);
    const PrependScheme scheme = read_prepend_scheme(field);
    auto space = std::make_shared<Pattern>(Pattern::string(" "));
    step.rewrite = [=, where = field.where()](const Piece& piece, std::deque<AlignedText>& arena, bool skip_prefix) {
      arena.push_back(piece.copy());
      AlignedText& text = arena.back();
      replace_matches(text, *space, replacement, size_t{UINT32_MAX} / 2, where);
      const bool wanted = scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && text.shift() == 0);
      if (wanted && !skip_prefix && !text.text().starts_with(replacement)) text.prepend(replacement);
      return whole(text);
    };
    if (field.bool_or("split", true)) {
      auto mark = std::make_shared<Pattern>(Pattern::string(replacement));
      step.find = [mark](std::string_view text, std::vector<Match>& out) { mark->find(text, out); };
      step.behavior = Behavior::kMergedWithNext;
    }
  } else if (type == "Digits") {
    step.behavior = field.bool_or("individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous;
    step.find = [](std::string_view text, std::vector<Match>& out) {
      find_chars(text, out, [](char32_t code) { return (char_class(code) & kCharNumber) != 0; });
    };
  } else if (type == "Punctuation") {
    if (const auto behavior = field.find("behavior")) step.behavior = read_behavior(*behavior);
    step.find = [](std::string_view text, std::vector<Match>& out) { find_chars(text, out, is_punctuation_char); };
  } else if (type == "WhitespaceSplit") {
    step.behavior = Behavior::kRemoved;
    step.find = [](std::string_view text, std::vector<Match>& out) { find_chars(text, out, is_space_char); };
  } else if (type == "Whitespace") {  // \w+|[^\w\s]+
    step.behavior = Behavior::kRemoved;
    step.find = [](std::string_view text, std::vector<Match>& out) {
      const auto kind = [](char32_t code) { return is_word_char(code) ? 1 : is_space_char(code) ? 0 : 2; };
      int previous = -1;
      for (size_t i = 0; i < text.size();) {
        const DecodedChar c = decode_utf8(text, i);
        const int now = kind(c.code);
        if (now != previous) out.push_back({i, i, now == 0});
        previous = now;
        i += c.length;
        out.back().end = i;
      }
    };
  } else if (type == "CharDelimiterSplit") {
    const std::string delimiter = field.at("delimiter").as_string();
    if (delimiter.empty()) fail("{}: delimiter is empty, expected one character", field.where());
    auto pattern = std::make_shared<Pattern>(Pattern::string(delimiter));
    step.behavior = Behavior::kRemoved;
    step.find = [pattern](std::string_view text, std::vector<Match>& out) { pattern->find(text, out); };
  } else if (type == "BertPreTokenizer") {
    step.behavior = Behavior::kRemoved;
    step.find = [](std::string_view text, std::vector<Match>& out) { find_chars(text, out, is_space_char); };
    steps_.push_back(std::make_unique<Step>(std::move(step)));
    step = Step();
    step.find = [](std::string_view text, std::vector<Match>& out) { find_chars(text, out, is_punctuation_char); };
  } else {
    fail_hint(
        "graft reads ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, BertPreTokenizer, "
        "CharDelimiterSplit and Sequence",
        "{}: pre-tokenizer type '{}' is not supported", field.where(), printable(type));
  }
  steps_.push_back(std::make_unique<Step>(std::move(step)));
}

bool PreTokenizer::ends_in_byte_level() const {
  if (steps_.empty() || !steps_.back()->byte_level) return false;
  return std::count_if(steps_.begin(), steps_.end(), [](const auto& step) { return step->byte_level; }) == 1;
}

void PreTokenizer::split(std::vector<Piece>& pieces, std::deque<AlignedText>& arena, bool skip_prefix,
                         bool keep_bytes) const {
  std::vector<Piece> next;
  std::vector<Match> matches;
  for (const auto& step : steps_) {
    next.clear();
    for (size_t p = 0; p < pieces.size(); ++p) {
      const Piece piece = step->rewrite ? step->rewrite(pieces[p], arena, skip_prefix && p == 0) : pieces[p];
      if (step->find) {
        matches.clear();
        step->find(piece.text(), matches);
        apply_behavior(step->behavior, matches);
        for (const Match& m : matches) {
          if (m.end > m.begin) next.push_back(piece.slice(m.begin, m.end));
        }
      } else {
        next.push_back(piece);
      }
    }
    if (step->byte_level && !keep_bytes) {
      for (Piece& piece : next) {
        arena.push_back(piece.copy());
        to_byte_level(arena.back());
        piece = whole(arena.back());
      }
    }
    pieces.swap(next);
  }
}

}  // namespace graft
