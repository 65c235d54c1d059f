#include "graft/text/normalizer.h"

#include <array>
#include <functional>

#include "graft/text/pattern.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

struct ByteTable {
  std::array<std::string, 256> chars;
  std::array<int16_t, 0x180> bytes;
  ByteTable() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const char32_t code = visible ? byte : next++;
      append_utf8(chars[byte], code);
      bytes[code] = static_cast<int16_t>(byte);
    }
  }
};
const ByteTable& byte_table() {
  static const ByteTable table;
  return table;
}

// Keeps the characters for which keep(code) holds.
template <typename Keep>
void filter(AlignedText& text, Keep&& keep) {
  const std::string_view old = text.text();
  AlignedText::Builder out(text);
  for (size_t i = 0; i < old.size();) {
    const DecodedChar c = decode_utf8(old, i);
    if (keep(c.code)) out.keep(i, i + c.length);
    i += c.length;
  }
  out.finish();
}

void strip(AlignedText& text, bool left, bool right) {
  const std::string_view old = text.text();
  size_t begin = 0, end = old.size();
  while (left && begin < end) {
    const DecodedChar c = decode_utf8(old, begin);
    if (!is_space_char(c.code)) break;
    begin += c.length;
  }
  while (right && end > begin) {
    const size_t at = previous_char(old, end);
    if (!is_space_char(decode_utf8(old, at).code)) break;
    end = at;
  }
  if (begin == 0 && end == old.size()) return;
  AlignedText::Builder out(text);
  out.keep(begin, end);
  out.finish();
}

void lowercase(AlignedText& text) {
  const std::string_view old = text.text();
  AlignedText::Builder out(text);
  std::vector<char32_t> lower;
  std::string written;
  for (size_t i = 0; i < old.size();) {
    const DecodedChar c = decode_utf8(old, i);
    lower.clear();
    written.clear();
    append_lowercase(lower, c.code);
    for (const char32_t code : lower) append_utf8(written, code);
    out.put(written, text.span(i));
    i += c.length;
  }
  out.finish();
}

// Only the parts that may change are decomposed and composed: in most texts a few characters, or none.
void normalize_form(AlignedText& text, NormalForm form) {
  const std::string_view old = text.text();
  UnstableRun run = find_unstable(old, 0, form);
  if (run.begin == run.end) return;
  AlignedText::Builder out(text);
  size_t kept = 0;
  while (run.begin < run.end) {
    out.keep(kept, run.begin);
    out.apply(run.begin, run.end, normalize_unicode(old.substr(run.begin, run.end - run.begin), form));
    kept = run.end;
    run = find_unstable(old, kept, form);
  }
  out.keep(kept, old.size());
  out.finish();
}

}  // namespace

std::string_view byte_level_char(uint8_t byte) { return byte_table().chars[byte]; }

int byte_level_byte(char32_t code) { return code < 0x180 ? byte_table().bytes[code] : -1; }

void to_byte_level(AlignedText& text) {
  const std::string_view old = text.text();
  AlignedText::Builder out(text);
  for (size_t i = 0; i < old.size(); ++i) out.put(byte_level_char(static_cast<uint8_t>(old[i])), text.span(i));
  out.finish();
}

void replace_matches(AlignedText& text, const Pattern& pattern, std::string_view content, size_t max_bytes,
                     std::string_view where) {
  const std::string_view old = text.text();
  std::vector<Match> matches;
  pattern.find(old, matches);
  if (matches.empty() || (matches.size() == 1 && !matches[0].matched)) return;
  AlignedText::Builder out(text);
  for (const Match& match : matches) {
    if (match.matched) {
      // What replaces stands for the end of what it replaced.
      out.put(content, match.end > 0 ? text.span(match.end - 1) : Span{text.shift(), text.shift()});
    } else {
      out.keep(match.begin, match.end);
    }
    if (out.size() > max_bytes) {
      fail("{}: the normalizer makes more than {} bytes of a text; no published tokenizer does that", where, max_bytes);
    }
  }
  out.finish();
}

struct Normalizer::Step {
  std::function<void(AlignedText&, bool skip_prefix, size_t max_bytes)> run;
};

Normalizer::Normalizer() = default;
Normalizer::Normalizer(Normalizer&&) noexcept = default;
Normalizer& Normalizer::operator=(Normalizer&&) noexcept = default;
Normalizer::~Normalizer() = default;

Normalizer::Normalizer(const std::optional<JsonField>& field) {
  if (field) add(*field);
}

void Normalizer::add(const JsonField& field) {
  const std::string type = field.type();
  const auto step = [&](auto run) { steps_.push_back(std::make_unique<Step>(Step{std::move(run)})); };
  const auto unicode = [&](NormalForm form) {
    step([form](AlignedText& text, bool, size_t) { normalize_form(text, form); });
  };
  if (type == "Sequence") {
    const JsonField list = field.at("normalizers");
    for (size_t i = 0; i < list.array_size(); ++i) add(list.element(i));
  } else if (type == "NFC") {
    unicode(NormalForm::kNfc);
  } else if (type == "NFD") {
    unicode(NormalForm::kNfd);
  } else if (type == "NFKC") {
    unicode(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    unicode(NormalForm::kNfkd);
  } else if (type == "Prepend") {
    step([prefix = field.at("prepend").as_string()](AlignedText& text, bool skip_prefix, size_t) {
      if (!skip_prefix && !text.text().empty()) text.prepend(prefix);
    });
  } else if (type == "Replace") {
    auto pattern = std::make_shared<Pattern>(Pattern::from_json(field.at("pattern")));
    step(
        [pattern, content = field.at("content").as_string(), where = field.where()](
            AlignedText& text, bool, size_t max_bytes) { replace_matches(text, *pattern, content, max_bytes, where); });
  } else if (type == "Lowercase") {
    step([](AlignedText& text, bool, size_t) { lowercase(text); });
  } else if (type == "Strip") {
    const bool left = field.bool_or("strip_left", true), right = field.bool_or("strip_right", true);
    step([left, right](AlignedText& text, bool, size_t) { strip(text, left, right); });
  } else if (type == "StripAccents") {
    step([](AlignedText& text, bool, size_t) {
      filter(text, [](char32_t code) { return (char_class(code) & kCharMark) == 0; });
    });
  } else if (type == "ByteLevel") {
    step([](AlignedText& text, bool, size_t) { to_byte_level(text); });
  } else {
    fail_hint(
        "graft reads NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, StripAccents, ByteLevel and Sequence",
        "{}: normalizer type '{}' is not supported", field.where(), printable(type));
  }
}

void Normalizer::normalize(AlignedText& text, bool skip_prefix) const {
  if (text.text().empty()) return;
  // The longest published expansion is NFKC's 11 times (U+FDFA); beyond 32 times somebody wants to fill the memory.
  const size_t max_bytes = 32 * text.text().size() + (size_t{64} << 10);
  for (const auto& step : steps_) {
    step->run(text, skip_prefix, max_bytes);
    if (text.text().size() > max_bytes) {
      fail("a normalizer of tokenizer.json makes more than {} bytes of a text; no published tokenizer does that",
           max_bytes);
    }
  }
}

}  // namespace graft
