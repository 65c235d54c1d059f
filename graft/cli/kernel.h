#pragma once

#include <CLI/CLI.hpp>

namespace graft {

// The subcommands of `graft kernel` that have a file of their own.
void add_kernel_bench(CLI::App& group);
void add_kernel_page(CLI::App& group);
void add_kernel_tune(CLI::App& group);
void add_kernel_route(CLI::App& group);

}  // namespace graft
