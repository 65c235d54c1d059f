#include "graft/formats/module_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "graft/base/error.h"

namespace graft {

struct ModuleRegex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;
  std::string pattern, where;
  ~Code() {
    pcre2_code_free(code);
    pcre2_match_context_free(limits);
  }
};

ModuleRegex::ModuleRegex(std::string_view pattern, std::string_view where) {
  auto made = std::make_shared<Code>();
  made->pattern = pattern;
  made->where = where;
  GRAFT_CHECK(pattern.size() <= 65536, "{}: a regular expression of {} bytes, expected at most 65536", where,
              pattern.size());
  int error = 0;
  size_t offset = 0;
  made->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error, &offset, nullptr);
  if (made->code == nullptr) {
    unsigned char text[200] = {};
    pcre2_get_error_message(error, text, sizeof text);
    fail("{}: '{}' is not a regular expression: {} at offset {}", where, printable(pattern),
         reinterpret_cast<char*>(text), offset);
  }
  made->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(made->limits, 200'000);  // some milliseconds; names of modules need hundreds
  pcre2_set_depth_limit(made->limits, 10'000);
  pcre2_set_heap_limit(made->limits, 16'384);  // KiB
  code_ = std::move(made);
}

int ModuleRegex::match(std::string_view text, unsigned options, std::string* group) const {
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code_->code, nullptr);
  const int found =
      pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, options, data, code_->limits);
  if (found > 1 && group != nullptr) {
    const size_t* ends = pcre2_get_ovector_pointer(data);
    *group = text.substr(ends[2], ends[3] - ends[2]);
  }
  pcre2_match_data_free(data);
  if (found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_DEPTHLIMIT || found == PCRE2_ERROR_HEAPLIMIT) {
    fail_hint("write it without nested repetition", "{}: '{}' takes too long to match '{}'", code_->where,
              printable(code_->pattern), printable(text));
  }
  return found;
}

bool ModuleRegex::full_match(std::string_view text) const {
  return match(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED, nullptr) > 0;
}

std::string ModuleRegex::first_group(std::string_view text) const {
  std::string group;
  match(text, PCRE2_ANCHORED, &group);
  return group;
}

}  // namespace graft
