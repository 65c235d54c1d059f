#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "graft/base/json.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// Wrong usage that the command line alone shows: printed as an error, exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Interrupted by SIGINT or SIGTERM after saving what was made: exit code 130.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Ends the program with a code, everything having been said.
struct ExitCode {
  int code;
};

// The flags every command has.
struct CommonFlags {
  int threads = 0;  // 0: cores this process may use
  uint64_t seed = 0;
  std::string dtype = "auto";
  bool quiet = false, verbose = false, json = false;
};
void add_common_flags(CLI::App& command, CommonFlags& flags, bool with_json = true);

// Threads and scratch as the flags ask, made when a command runs. Applies --quiet and --verbose to the log.
class Runtime {
 public:
  explicit Runtime(const CommonFlags& flags);
  Context& context() { return *context_; }
  ThreadPool& pool() { return *pool_; }

 private:
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Context> context_;
};

// `auto` resolved: bf16 where the CPU has native bf16 dot products, else f32.
Compute resolve_compute(const std::string& dtype);
std::string compute_name(Compute compute);  // "f32", "bf16"

// SIGINT and SIGTERM end the process with 130. So it is from the start on; right for whatever makes nothing that would be left half done.
void leave_on_signals();
// From here on they set stop_requested, for a command that saves or removes what it made; a second one ends the process at once.
extern std::atomic<bool> stop_requested;
void install_signal_handlers();
void throw_if_stopped();  // Interrupted

// Answers the JSON objects on standard input line by line, each with one line on standard output: what `answer` makes of it, or {"error"}. For
// programs that time something else in turns with graft.
void serve_lines(const std::function<Json(const Json&)>& answer);

bool stderr_is_terminal();
bool stdout_is_terminal();

// One function per subcommand, each in its own file.
void add_dump(CLI::App& app);
void add_init(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_moe(CLI::App& group);
void add_kernel(CLI::App& app);
void add_recipe(CLI::App& app);
void add_demo(CLI::App& app);
void add_train(CLI::App& app);
void add_merge(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_eval(CLI::App& app);
void add_data(CLI::App& app);
void add_inspect(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_detokenize(CLI::App& app);
void add_template(CLI::App& app);
void add_tokenizer(CLI::App& app);

}  // namespace graft
