// Strings cut and joined; every piece keeps the marks of where it came from.
#include <fmt/format.h>

#include <algorithm>

#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

void check_text(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) throw Fault{fmt::format("{} must be a string, not {}", what, type_name(value))};
}

std::vector<int32_t> code_points(std::string_view text) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < text.size();) out.push_back(next_code_point(text, i));
  return out;
}

}  // namespace

Value strip(Runtime& runtime, const Value& text, const Value* characters, bool left, bool right) {
  const std::string& s = text.str();
  size_t begin = 0, end = s.size();
  if (characters == nullptr || characters->is_none()) {
    if (left) begin = skip_space(s, begin, end);
    if (right) end = skip_space_back(s, begin, end);
  } else {
    check_text(*characters, "the characters to strip");
    const std::vector<int32_t> set = code_points(characters->str());
    const auto strips = [&](int32_t c) {
      runtime.step(1 + static_cast<int64_t>(set.size() >> 4));
      return std::find(set.begin(), set.end(), c) != set.end();
    };
    while (left && begin < end) {
      size_t next = begin;
      if (!strips(next_code_point(s, next))) break;
      begin = next;
    }
    while (right && begin < end) {
      size_t start = end - 1;
      while (start > begin && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
      size_t next = start;
      if (!strips(next_code_point(s, next))) break;
      end = start;
    }
  }
  runtime.scanned(s.size() - (end - begin));
  return runtime.slice(text, begin, end);
}

Value replace(Runtime& runtime, const Value& text, const Value& from, const Value& to, int64_t count) {
  check_text(from, "the text to replace");
  check_text(to, "the replacement");
  const std::string &s = text.str(), &old = from.str();
  if (count < 0) count = INT64_MAX;
  TextBuilder out;
  size_t done = 0;
  const auto put = [&](size_t upto) {
    out.append(text.text(), done, upto);
    out.append(to.text());
    done = upto;
    runtime.copied(to.str().size());
    runtime.check_string(static_cast<int64_t>(out.size()));
  };
  runtime.copied(s.size());
  if (old.empty()) {  // before every character and at the end
    for (size_t i = 0; count > 0; --count) {
      put(i);
      if (i >= s.size()) break;
      next_code_point(s, i);
    }
  } else {
    for (size_t i = s.find(old); i != std::string::npos && count > 0; i = s.find(old, i + old.size()), --count) {
      put(i);
      done = i + old.size();
    }
  }
  if (done == 0 && out.size() == 0) return text;
  out.append(text.text(), done, s.size());
  return runtime.string(std::move(out));
}

Value join(Runtime& runtime, const Value& separator, const std::vector<Value>& parts) {
  TextBuilder out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) print(runtime, out, separator);
    print(runtime, out, parts[i]);
  }
  return runtime.string(std::move(out));
}

std::vector<Value> split_lines(Runtime& runtime, const Value& text, bool keep_ends) {
  const std::string& s = text.str();
  std::vector<Value> out;
  runtime.scanned(s.size());
  for (size_t begin = 0, i = 0; i < s.size();) {
    size_t next = i;
    const int32_t c = next_code_point(s, next);
    const bool ends = (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (c == '\r' && next < s.size() && s[next] == '\n') ++next;
    if (ends) {
      out.push_back(runtime.slice(text, begin, keep_ends ? next : i));
      begin = next;
    }
    i = next;
    if (i >= s.size() && begin < s.size()) out.push_back(runtime.slice(text, begin, s.size()));
  }
  return out;
}

}  // namespace graft::jinja
