#include "graft/cli/app.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/cli/common.h"
#include "graft/cli/usage.h"
#include "graft/cli/version.h"

namespace graft {
namespace {

void print_error(const std::string& message, const std::string& hint) {
  fmt::print(stderr, "error: {}\nhint: {}\n", message,
             hint.empty() ? "correct what is named above and run again" : hint);
}

int run(int argc, char** argv) {
  CLI::App app("graft: fine-tune, merge and run open language models on the machine you own.", "graft");
  app.footer(
      "Example:\n  graft train --model Qwen2.5-0.5B --data train.jsonl --out my-adapter\n\n"
      "graft COMMAND --help shows a command's flags and an example.");
  app.set_version_flag("--version", version_text);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  for (const auto add :
       {add_train, add_merge, add_generate, add_chat, add_eval, add_data, add_inspect, add_tokenize, add_detokenize,
        add_template, add_tokenizer, add_dump, add_init, add_bench, add_kernel, add_recipe, add_demo}) {
    add(app);
  }
  try {
    cpu_level();  // a wrong GRAFT_CPU is a usage error before anything runs
    if (const char* trace = std::getenv("GRAFT_TRACE"); trace != nullptr && std::string_view(trace) == "dispatch") {
      fmt::print(stderr, "{}", dispatch_text());
    }
  } catch (const Error& e) {
    print_error(e.what(), e.hint());
    return 2;
  }
  const auto where_to_look = [&app] { return command_path(app) + " --help shows the flags"; };
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);  // --help, --version
  } catch (const CLI::ParseError& e) {
    const std::vector<std::string> faults = usage_faults(app, e);
    print_error(
        faults.size() == 1 ? faults[0] : fmt::format("{} faults:\n  {}", faults.size(), fmt::join(faults, "\n  ")),
        where_to_look());
    return 2;
  } catch (const ExitCode& e) {
    return e.code;
  } catch (const UsageError& e) {
    print_error(e.what(), where_to_look());
    return 2;
  } catch (const Interrupted& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 130;
  } catch (const Error& e) {
    print_error(e.what(), e.hint());
    return 1;
  } catch (const std::bad_alloc&) {
    print_error("out of memory", "use a smaller model, batch or --max-length, or free memory");
    return 1;
  } catch (const std::exception& e) {
    print_error(e.what(), "");
    return 1;
  }
}

}  // namespace

int run_graft(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // `graft … | head` ends quietly
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit is an error like a full disk
  leave_on_signals();
  const int code = run(argc, argv);
  std::cout.flush();
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good();
  if (code != 0 || written) return code;
  print_error("standard output: cannot be written to its end", "free some space, or send it elsewhere");
  return 1;
}

}  // namespace graft
