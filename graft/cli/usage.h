#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace graft {

// The command that was parsed, however deep: "graft data check".
std::string command_path(const CLI::App& app);

// Everything that is wrong with a command line that did not parse: CLI11 stops at the first fault, this goes on through the values of
// the other flags, unknown flags (with the nearest known one) and what is missing.
std::vector<std::string> usage_faults(CLI::App& app, const CLI::ParseError& first);

}  // namespace graft
