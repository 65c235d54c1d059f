#pragma once

#include <CLI/CLI.hpp>

namespace graft {

// The subcommands of `graft kernel` that have a file of their own.
void add_kernel_bench(CLI::App& group);

}  // namespace graft
