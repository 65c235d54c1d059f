#include "graft/base/log.h"

#include <cstdio>
#include <mutex>

namespace graft {
namespace {

std::mutex log_mutex;

void write_to_stderr(LogLevel level, std::string_view line) {
  if (level < LogLevel::kWarning) return;
  fmt::print(stderr, "{}: {}\n", level == LogLevel::kWarning ? "warning" : "error", line);
}

LogSink& sink() {
  static LogSink instance = write_to_stderr;
  return instance;
}

}  // namespace

void set_log_sink(LogSink replacement) {
  const std::lock_guard<std::mutex> lock(log_mutex);
  sink() = replacement ? std::move(replacement) : write_to_stderr;
}

void log_line(LogLevel level, std::string_view line) {
  const std::lock_guard<std::mutex> lock(log_mutex);
  sink()(level, line);
}

}  // namespace graft
