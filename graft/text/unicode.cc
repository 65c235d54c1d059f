#include "graft/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "graft/base/utf8.h"

namespace graft {
namespace {

bool eight_ascii(const char* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return (word & 0x8080808080808080ull) == 0;
}

struct CodeRange {
  char32_t first, last;
};
template <typename Range, size_t kCount>
const Range* find_range(const Range (&ranges)[kCount], char32_t code) {
  const Range* after = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                        [](char32_t c, const Range& range) { return c < range.first; });
  return after != std::begin(ranges) && code <= (after - 1)->last ? after - 1 : nullptr;
}

// The reference library mixes versions of Unicode; where they matter graft follows it. Its regexes know Unicode 16: these
// are the letters, marks, numbers and punctuation that a utf8proc of Unicode 15 calls unassigned.
struct ClassRange {
  char32_t first, last;
  uint16_t bits;
};
constexpr ClassRange kSinceUnicode15[] = {{0x897, 0x897, kCharMark},
                                          {0x1B4E, 0x1B4F, kCharPunctuation},
                                          {0x1B7F, 0x1B7F, kCharPunctuation},
                                          {0x1C89, 0x1C8A, kCharLetter},
                                          {0xA7CB, 0xA7CD, kCharLetter},
                                          {0xA7DA, 0xA7DC, kCharLetter},
                                          {0x105C0, 0x105F3, kCharLetter},
                                          {0x10D40, 0x10D49, kCharNumber | kCharDecimal},
                                          {0x10D4A, 0x10D65, kCharLetter},
                                          {0x10D69, 0x10D6D, kCharMark},
                                          {0x10D6E, 0x10D6E, kCharPunctuation},
                                          {0x10D6F, 0x10D85, kCharLetter},
                                          {0x10EC2, 0x10EC4, kCharLetter},
                                          {0x10EFC, 0x10EFC, kCharMark},
                                          {0x11380, 0x11389, kCharLetter},
                                          {0x1138B, 0x1138B, kCharLetter},
                                          {0x1138E, 0x1138E, kCharLetter},
                                          {0x11390, 0x113B5, kCharLetter},
                                          {0x113B7, 0x113B7, kCharLetter},
                                          {0x113B8, 0x113C0, kCharMark},
                                          {0x113C2, 0x113C2, kCharMark},
                                          {0x113C5, 0x113C5, kCharMark},
                                          {0x113C7, 0x113CA, kCharMark},
                                          {0x113CC, 0x113D0, kCharMark},
                                          {0x113D1, 0x113D1, kCharLetter},
                                          {0x113D2, 0x113D2, kCharMark},
                                          {0x113D3, 0x113D3, kCharLetter},
                                          {0x113D4, 0x113D5, kCharPunctuation},
                                          {0x113D7, 0x113D8, kCharPunctuation},
                                          {0x113E1, 0x113E2, kCharMark},
                                          {0x116D0, 0x116E3, kCharNumber | kCharDecimal},
                                          {0x11BC0, 0x11BE0, kCharLetter},
                                          {0x11BE1, 0x11BE1, kCharPunctuation},
                                          {0x11BF0, 0x11BF9, kCharNumber | kCharDecimal},
                                          {0x11F5A, 0x11F5A, kCharMark},
                                          {0x13460, 0x143FA, kCharLetter},
                                          {0x16100, 0x1611D, kCharLetter},
                                          {0x1611E, 0x1612F, kCharMark},
                                          {0x16130, 0x16139, kCharNumber | kCharDecimal},
                                          {0x16D40, 0x16D6C, kCharLetter},
                                          {0x16D6D, 0x16D6F, kCharPunctuation},
                                          {0x16D70, 0x16D79, kCharNumber | kCharDecimal},
                                          {0x18CFF, 0x18CFF, kCharLetter},
                                          {0x1CCF0, 0x1CCF9, kCharNumber | kCharDecimal},
                                          {0x1E5D0, 0x1E5ED, kCharLetter},
                                          {0x1E5EE, 0x1E5EF, kCharMark},
                                          {0x1E5F0, 0x1E5F0, kCharLetter},
                                          {0x1E5F1, 0x1E5FA, kCharNumber | kCharDecimal},
                                          {0x1E5FF, 0x1E5FF, kCharPunctuation},
                                          {0x2EBF0, 0x2EE5D, kCharLetter}};

// Its normal forms know Unicode 11 and leave these alone.
constexpr CodeRange kLaterDecompositions[] = {{0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},
                                              {0x10781, 0x107BA}, {0x11938, 0x11938}, {0x1E030, 0x1E06D},
                                              {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

// Its list of punctuation ends at Unicode 8.
constexpr CodeRange kLaterPunctuation[] = {
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},
    {0x166D, 0x166D},   {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD},
    {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x111C9, 0x111C9}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B},
    {0x1145D, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946},
    {0x119E2, 0x119E2}, {0x11A3F, 0x11A46}, {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09},
    {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF},
    {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F}};

// Its canonical order ends at Unicode 9: later marks are to it characters that stay where they are.
constexpr CodeRange kLaterCombining[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x1193D, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

int combining_class(char32_t code) {
  const int order = utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class;
  return order != 0 && find_range(kLaterCombining, code) != nullptr ? 0 : order;
}

// Full decomposition of one character; a character without one gives itself.
size_t decompose(char32_t code, bool compatibility, std::array<utf8proc_int32_t, 32>& out) {
  if (code >= 0x32FF && find_range(kLaterDecompositions, code) != nullptr) {
    out[0] = static_cast<utf8proc_int32_t>(code);
    return 1;
  }
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0);
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), out.data(),
                                             static_cast<utf8proc_ssize_t>(out.size()),
                                             static_cast<utf8proc_option_t>(options), &boundary);
  if (count <= 0 || count > static_cast<utf8proc_ssize_t>(out.size())) {
    out[0] = static_cast<utf8proc_int32_t>(code);
    return 1;
  }
  return static_cast<size_t>(count);
}

// The primary composite of two characters, or 0.
char32_t compose(char32_t first, char32_t second) {
  utf8proc_int32_t pair[3] = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second), 0};
  const auto length =
      utf8proc_normalize_utf32(pair, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (length != 1 || find_range(kLaterDecompositions, static_cast<char32_t>(pair[0])) != nullptr) return 0;
  return static_cast<char32_t>(pair[0]);
}

// Characters that a normal form may change or join to what stands before them. One bit per form.
class Unstable {
 public:
  Unstable() : bits_(kLimit, 0) {
    std::array<utf8proc_int32_t, 32> parts;
    for (char32_t code = 0x80; code < kLimit; ++code) {
      if (code >= 0xAC00 && code <= 0xD7A3) {
        bits_[code] |= bit(NormalForm::kNfd) | bit(NormalForm::kNfkd);
        continue;
      }
      if (combining_class(code) != 0) bits_[code] = 15;
      for (const bool compatibility : {false, true}) {
        const size_t count = decompose(code, compatibility, parts);
        if (count == 1 && static_cast<char32_t>(parts[0]) == code) continue;
        const NormalForm decomposed = compatibility ? NormalForm::kNfkd : NormalForm::kNfd;
        const NormalForm composed = compatibility ? NormalForm::kNfkc : NormalForm::kNfc;
        bits_[code] |= bit(decomposed);
        for (size_t k = 1; k < count; ++k) bits_[static_cast<size_t>(parts[k])] |= bit(composed);
        const auto length =
            utf8proc_normalize_utf32(parts.data(), static_cast<utf8proc_ssize_t>(count),
                                     static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
        if (length != 1 || static_cast<char32_t>(parts[0]) != code) bits_[code] |= bit(composed);
      }
    }
    for (char32_t code = 0x1161; code <= 0x11C2; ++code) bits_[code] |= bit(NormalForm::kNfc) | bit(NormalForm::kNfkc);
    // A second part that is ASCII (a ligature's letter) is stable for all that: letters never join what precedes them.
    std::fill(bits_.begin(), bits_.begin() + 0x80, uint8_t{0});
  }
  bool operator()(char32_t code, NormalForm form) const { return code < kLimit && (bits_[code] & bit(form)) != 0; }

 private:
  static constexpr size_t kLimit = 0x30000;  // nothing beyond has a decomposition or a combining class
  static uint8_t bit(NormalForm form) { return static_cast<uint8_t>(1u << static_cast<unsigned>(form)); }
  std::vector<uint8_t> bits_;
};

// Canonical decomposition with marks in canonical order.
std::vector<ChangedChar> decomposed(std::string_view text, bool compatibility) {
  std::vector<ChangedChar> out;
  out.reserve(text.size());
  std::vector<std::pair<int, ChangedChar>> marks;
  const auto flush = [&] {
    std::stable_sort(marks.begin(), marks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& mark : marks) out.push_back(mark.second);
    marks.clear();
  };
  std::array<utf8proc_int32_t, 32> parts;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_utf8(text, i);
    i += c.length;
    const size_t count =
        c.code < 0x80 ? (parts[0] = static_cast<utf8proc_int32_t>(c.code), 1) : decompose(c.code, compatibility, parts);
    for (size_t k = 0; k < count; ++k) {
      const auto code = static_cast<char32_t>(parts[k]);
      const int order = combining_class(code);
      const ChangedChar changed{code, k == 0 ? 0 : 1};
      if (order == 0) {
        flush();
        out.push_back(changed);
      } else {
        marks.emplace_back(order, changed);
      }
    }
  }
  flush();
  return out;
}

// Canonical composition (UAX 15); a composite takes the changes of its parts together.
std::vector<ChangedChar> composed(const std::vector<ChangedChar>& in) {
  std::vector<ChangedChar> out;
  out.reserve(in.size());
  size_t starter = 0;
  bool has_starter = false;
  int last_class = -1;  // class of the last mark kept since the starter, -1 if none
  for (const ChangedChar& c : in) {
    const int order = combining_class(c.first);
    if (has_starter && (last_class < 0 || last_class < order)) {
      if (const char32_t joined = compose(out[starter].first, c.first); joined != 0) {
        out[starter] = {joined, out[starter].second + c.second - 1};
        continue;
      }
    }
    out.push_back(c);
    if (order == 0) {
      starter = out.size() - 1;
      has_starter = true;
      last_class = -1;
    } else {
      last_class = order;
    }
  }
  return out;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      while (i + 8 <= text.size() && eight_ascii(text.data() + i)) i += 8;
      while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
      continue;
    }
    const Utf8Sequence sequence = utf8_sequence(text, i);
    if (!sequence.complete) return i;
    i += sequence.length;
  }
  return std::string_view::npos;
}

std::string utf8_lossy(std::string_view bytes) {
  size_t i = find_invalid_utf8(bytes);
  if (i == std::string_view::npos) return std::string(bytes);
  std::string out(bytes.substr(0, i));
  while (i < bytes.size()) {
    const Utf8Sequence sequence = utf8_sequence(bytes, i);
    if (sequence.complete) {
      out.append(bytes.substr(i, sequence.length));
    } else {
      out += "\xEF\xBF\xBD";
    }
    i += sequence.length;
  }
  return out;
}

size_t previous_char(std::string_view text, size_t end) {
  size_t i = end - 1;
  while (i > 0 && is_utf8_continuation(text[i])) --i;
  return i;
}

size_t utf8_size(char32_t code) { return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4; }

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

uint16_t unicode_class(char32_t code) {
  uint16_t bits = 0;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: bits = kCharLetter; break;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: bits = kCharMark; break;
    case UTF8PROC_CATEGORY_ND: bits = kCharNumber | kCharDecimal; break;
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: bits = kCharNumber; break;
    case UTF8PROC_CATEGORY_PC: bits = kCharPunctuation | kCharConnector; break;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: bits = kCharPunctuation; break;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: bits = kCharSpace; break;  // all of Z has White_Space
    case UTF8PROC_CATEGORY_CN:
      if (const ClassRange* range = find_range(kSinceUnicode15, code)) bits = range->bits;
      break;
    default: break;
  }
  if ((code >= 9 && code <= 13) || code == 0x85) bits |= kCharSpace;
  return bits;
}

bool is_punctuation_char(char32_t code) {
  if (code < 128) {  // all ASCII signs, also those of categories S
    return (code >= 33 && code <= 47) || (code >= 58 && code <= 64) || (code >= 91 && code <= 96) ||
           (code >= 123 && code <= 126);
  }
  return (char_class(code) & kCharPunctuation) != 0 && find_range(kLaterPunctuation, code) == nullptr;
}

bool is_word_char(char32_t code) {
  if ((char_class(code) & (kCharLetter | kCharMark | kCharDecimal | kCharConnector)) != 0) return true;
  if (code < 128) return false;
  return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_NL || code == 0x200C ||
         code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
         (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);  // Other_Alphabetic symbols
}

void append_lowercase(std::vector<char32_t>& out, char32_t code) {
  if (code == 0x130) {
    out.push_back('i');
    out.push_back(0x307);
  } else {
    out.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  }
}

UnstableRun find_unstable(std::string_view text, size_t from, NormalForm form) {
  const auto unstable = [form](char32_t code) {
    if (code < 0x80 || (form == NormalForm::kNfc && code < 0x300)) return false;
    static const Unstable table;
    return table(code, form);
  };
  for (size_t i = from; i < text.size();) {
    if (i + 8 <= text.size() && eight_ascii(text.data() + i)) {
      i += 8;
      continue;
    }
    DecodedChar c = decode_utf8(text, i);
    if (!unstable(c.code)) {
      i += c.length;
      continue;
    }
    const size_t begin = i > from ? previous_char(text, i) : i;
    do {
      i += c.length;
      if (i == text.size()) break;
      c = decode_utf8(text, i);
    } while (unstable(c.code));
    return {begin, i};
  }
  return {text.size(), text.size()};
}

std::vector<ChangedChar> normalize_unicode(std::string_view text, NormalForm form) {
  std::vector<ChangedChar> parts = decomposed(text, form == NormalForm::kNfkc || form == NormalForm::kNfkd);
  return form == NormalForm::kNfc || form == NormalForm::kNfkc ? composed(parts) : parts;
}

}  // namespace graft
