#define PCRE2_CODE_UNIT_WIDTH 8
#include "graft/text/regex.h"

#include <pcre2.h>

#include <array>
#include <utility>

#include "graft/base/error.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

// White_Space. PCRE2's \s also takes U+180E.
constexpr std::string_view kSpaces =
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
// Alphabetic, marks, decimal digits, connectors. PCRE2's \w lacks marks and takes all numbers.
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{"
    "1F150}-\\x{1F169}\\x{1F170}-\\x{"
    "1F189}";
constexpr std::string_view kHex = "0-9A-Fa-f";

constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
    {"letter", "L"},
    {"lowercaseletter", "Ll"},
    {"uppercaseletter", "Lu"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"other", "C"},
    {"control", "Cc"},
    {"digit", "Nd"},
    {"upper", "Lu"},
    {"lower", "Ll"},
    {"alpha", "L"},
    {"punct", "P"},
};

bool compiles(const std::string& pattern) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// The name as PCRE2 has it. Script names stand for the script alone, not for its extensions as in newer PCRE2.
std::string property_name(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c != '_' && c != ' ' && c != '-') plain += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  for (const auto& [from, to] : kLongNames) {
    if (plain == from) return std::string(to);
  }
  const std::string script = fmt::format("sc:{}", name);
  return plain.size() > 2 && compiles("\\p{" + script + "}") ? script : std::string(name);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        escape();
      } else if (in_class_) {
        class_char();
      } else if (pattern_[at_] == '[') {
        open_class();
      } else if (pattern_[at_] == '{') {
        interval();
      } else {
        out_ += pattern_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("{}: the regex '{}' uses {}, which graft does not support", where_, printable(pattern_), what);
  }

  void set(std::string_view members, bool negated) {
    if (in_class_) {
      if (negated) refuse("a negated class such as \\W inside [ ]");
      out_ += members;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += members;
      out_ += ']';
    }
  }

  // \b with Oniguruma's idea of a word.
  void boundary(bool negated) {
    const std::string word = "[" + std::string(kWord) + "]";
    out_ += negated ? fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word)
                    : fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word);
  }

  void escape() {
    if (at_ + 1 >= pattern_.size()) {  // PCRE2 reports it
      out_ += pattern_[at_++];
      return;
    }
    const char c = pattern_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's': set(kSpaces, false); return;
      case 'w': set(kWord, false); return;
      case 'W': set(kWord, true); return;
      case 'b':
      case 'B':
        if (in_class_) {
          out_ += c == 'b' ? "\\x08" : "B";
        } else {
          boundary(c == 'B');
        }
        return;
      case 'h': set(kHex, false); return;
      case 'H': set(kHex, true); return;
      case 'S':
        if (in_class_) {
          out_ += "\\S";  // but for U+180E the same
        } else {
          set(kSpaces, true);
        }
        return;
      case 'u': {
        size_t digits = 0;
        while (digits < 4 && at_ + digits < pattern_.size() &&
               std::isxdigit(static_cast<uint8_t>(pattern_[at_ + digits]))) {
          ++digits;
        }
        if (digits != 4) refuse("\\u without four hexadecimal digits");
        out_ += "\\x{" + std::string(pattern_.substr(at_, 4)) + "}";
        at_ += 4;
        return;
      }
      case 'p':
      case 'P': {
        out_ += '\\';
        out_ += c;
        if (at_ >= pattern_.size() || pattern_[at_] != '{') return;
        const size_t close = pattern_.find('}', at_);
        if (close == std::string_view::npos) return;
        std::string_view name = pattern_.substr(at_ + 1, close - at_ - 1);
        out_ += '{';
        if (!name.empty() && name[0] == '^') {
          out_ += '^';
          name.remove_prefix(1);
        }
        out_ += property_name(name);
        out_ += '}';
        at_ = close + 1;
        return;
      }
      default: out_ += '\\'; out_ += c;
    }
  }

  void open_class() {
    in_class_ = true;
    out_ += pattern_[at_++];
    if (at_ < pattern_.size() && pattern_[at_] == '^') out_ += pattern_[at_++];
    if (at_ < pattern_.size() && pattern_[at_] == ']') {  // a literal there
      out_ += "\\]";
      ++at_;
    }
  }

  void class_char() {
    const char c = pattern_[at_];
    if (c == ']') {
      in_class_ = false;
    } else if (c == '[') {
      const size_t close = pattern_.find(":]", at_);
      if (at_ + 1 >= pattern_.size() || pattern_[at_ + 1] != ':' || close == std::string_view::npos) {
        refuse("a class inside a class");
      }
      out_ += pattern_.substr(at_, close + 2 - at_);
      at_ = close + 2;
      return;
    } else if (c == '&' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] == '&') {
      refuse("the intersection of classes (&&)");
    }
    out_ += c;
    ++at_;
  }

  // {,n} is {0,n} in Oniguruma; "{n,m}+" repeats there and is possessive in PCRE2.
  void interval() {
    size_t i = at_ + 1;
    const size_t low = i;
    while (i < pattern_.size() && is_digit(pattern_[i])) ++i;
    const std::string_view least = pattern_.substr(low, i - low);
    std::string_view most = least;
    bool comma = false;
    if (i < pattern_.size() && pattern_[i] == ',') {
      comma = true;
      const size_t high = ++i;
      while (i < pattern_.size() && is_digit(pattern_[i])) ++i;
      most = pattern_.substr(high, i - high);
    }
    if (i >= pattern_.size() || pattern_[i] != '}' || (least.empty() && most.empty())) {
      out_ += pattern_[at_++];
      return;
    }
    ++i;
    out_ += '{';
    out_ += least.empty() ? std::string_view("0") : least;
    if (i < pattern_.size() && pattern_[i] == '+') {
      if (least != "1" && least != "0" && !least.empty()) refuse("an interval with a plus behind it");
      ++i;
      comma = true, most = {};
    }
    if (comma) out_ += ',';
    out_ += most;
    out_ += '}';
    at_ = i;
  }

  std::string_view pattern_, where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

// What a thread needs to match; made once.
struct Workspace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr);
  Workspace() {
    if (data == nullptr || context == nullptr) fail("not enough memory for a regular expression");
    // A bomb such as (x+x+)+y ends here within half a second; real patterns need a few steps per character.
    pcre2_set_match_limit(context, 10'000'000);
    pcre2_set_heap_limit(context, 64 << 10);  // in KiB, for the interpreter
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 200> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

struct Regex::Impl {
  std::string pattern, where;
  pcre2_code* code = nullptr;
  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string_view where) : impl_(std::make_unique<Impl>()) {
  constexpr size_t kMaxBytes = 64 << 10;
  if (pattern.size() > kMaxBytes) {
    fail("{}: a regex of {} bytes, expected at most {}", where, pattern.size(), kMaxBytes);
  }
  impl_->pattern = pattern;
  impl_->where = where;
  const std::string translated = oniguruma_to_pcre2(pattern, where);
  int error = 0;
  size_t offset = 0;
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (context) {
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context.get(), 100);
  }
  // Oniguruma's ^ and $ always stand for lines.
  impl_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (impl_->code == nullptr) {
    fail("{}: the regex '{}' does not compile: {} (at byte {})", where, printable(pattern), pcre2_message(error),
         offset);
  }
  pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE);  // without it pcre2_match interprets
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

void Regex::find(std::string_view text, std::vector<Match>& out) const {
  thread_local Workspace workspace;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t covered = 0, from = 0;
  bool any = false;
  while (from <= text.size()) {
    const int count =
        pcre2_match(impl_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, workspace.data, workspace.context);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      fail_hint("the pattern is not one of a published model, or the text is unlike any text; check the file",
                "{}: the regex '{}' gave up at byte {} of a text: {}", impl_->where, printable(impl_->pattern), from,
                pcre2_message(count));
    }
    const size_t* range = pcre2_get_ovector_pointer(workspace.data);
    const size_t begin = range[0], end = range[1];
    if (begin == end && ((any && begin == covered) || begin > end)) {  // nothing right behind a match does not count
      if (from >= text.size()) break;
      from = begin + (begin < text.size() ? decode_utf8(text, begin).length : 1);
      continue;
    }
    if (end < begin) break;  // \K in a lookahead
    if (covered < begin) out.push_back({covered, begin, false});
    if (begin >= covered) out.push_back({begin, end, true});
    covered = std::max(covered, end);
    any = true;
    from = end;
    if (begin == end) {
      if (end >= text.size()) break;
      from = end + decode_utf8(text, end).length;
    }
  }
  if (covered < text.size()) out.push_back({covered, text.size(), false});
}

}  // namespace graft
