#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace graft {

// The one exception type, thrown at the edges: files, configs, shapes at graph-build time.
// `what()` says where, what was found and what was expected, in one line (or one fault per line);
// `hint()` says what to do, and may be empty. The command line prints both and exits 1.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string message, std::string hint = {})
      : std::runtime_error(std::move(message)), hint_(std::move(hint)) {}
  const std::string& hint() const noexcept { return hint_; }

 private:
  std::string hint_;
};

// fail("{}: …", path) throws Error with the formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// fail_hint("what to do", "{}: …", path): the same with a cure. The hint is plain text, not a format.
template <typename... Args>
[[noreturn]] void fail_hint(std::string hint, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), std::move(hint));
}

// Text from outside (a file's key, a user's word) made safe for one line of a terminal: control characters and bytes that
// are not UTF-8 are escaped, and more than `max_bytes` is cut with "…".
std::string printable(std::string_view text, size_t max_bytes = 80);

}  // namespace graft

// Checks what comes from outside. The arguments are evaluated only when the check fails.
#define GRAFT_CHECK(condition, ...)               \
  do {                                            \
    if (!(condition)) ::graft::fail(__VA_ARGS__); \
  } while (false)
#define GRAFT_CHECK_HINT(condition, hint, ...)               \
  do {                                                       \
    if (!(condition)) ::graft::fail_hint(hint, __VA_ARGS__); \
  } while (false)
