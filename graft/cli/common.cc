#include "graft/cli/common.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/log.h"

namespace graft {

std::atomic<bool> stop_requested = false;

namespace {

// Nothing is being made: the process may end where it stands.
void leave_at_once(int) {
  constexpr char kText[] = "interrupted\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(130);
}

void on_signal(int number) {
  if (stop_requested.exchange(true)) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

}  // namespace

void add_common_flags(CLI::App& command, CommonFlags& flags, bool with_json) {
  command.add_option("--threads", flags.threads, "Threads (default: the cores this process may use)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  command.add_option("--seed", flags.seed, "Names every random draw")->capture_default_str()->type_name("N");
  command.add_option("--dtype", flags.dtype, "Compute and activation type; auto takes what this machine does fastest")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str()
      ->type_name("auto|f32|bf16");
  command.add_flag("--quiet", flags.quiet, "Print errors only");
  command.add_flag("--verbose", flags.verbose, "Print what is decided along the way");
  if (with_json) command.add_flag("--json", flags.json, "Print JSON on standard output and nothing else");
}

Runtime::Runtime(const CommonFlags& flags) {
  set_log_sink([quiet = flags.quiet, verbose = flags.verbose](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning && !quiet) fmt::print(stderr, "warning: {}\n", line);
    if (level == LogLevel::kError) fmt::print(stderr, "error: {}\n", line);
    if (level <= LogLevel::kInfo && verbose) fmt::print(stderr, "{}\n", line);
  });
  pool_ = std::make_unique<ThreadPool>(flags.threads > 0 ? flags.threads : usable_cores());
  context_ = std::make_unique<Context>(*pool_);
}

Compute resolve_compute(const std::string& dtype) {
  if (dtype == "f32") return Compute::kF32;
  if (dtype == "bf16") return Compute::kBF16;
  return cpu_has_bf16_dot() ? Compute::kBF16 : Compute::kF32;
}

std::string compute_name(Compute compute) { return compute == Compute::kBF16 ? "bf16" : "f32"; }

void install_signal_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

void leave_on_signals() {
  std::signal(SIGINT, leave_at_once);
  std::signal(SIGTERM, leave_at_once);
}

void throw_if_stopped() {
  if (stop_requested.load()) throw Interrupted("interrupted");
}

void serve_lines(const std::function<Json(const Json&)>& answer) {
  for (std::string line; std::getline(std::cin, line);) {
    Json said;
    try {
      const Json ask = parse_json(line, "standard input");
      GRAFT_CHECK(ask.is_object(), "standard input: expected an object");
      said = answer(ask);
    } catch (const Error& e) {
      said = {{"error", e.what()}};
    } catch (const Json::exception& e) {
      said = {{"error", fmt::format("standard input: {}", e.what())}};
    }
    fmt::print("{}\n", said.dump());
    std::fflush(stdout);
  }
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) != 0; }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) != 0; }

}  // namespace graft
