#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>

namespace graft {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Libraries never print: they hand a line to the sink. The default sink writes warnings and errors to standard error as
// "warning: …" and drops the rest; the command line replaces it for --quiet and --verbose.
using LogSink = std::function<void(LogLevel, std::string_view)>;
void set_log_sink(LogSink sink);
void log_line(LogLevel level, std::string_view line);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace graft
