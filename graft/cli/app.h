#pragma once

namespace graft {

// The whole program: parses the command line, runs one subcommand, turns exceptions into exit codes (docs: cli contract).
int run_graft(int argc, char** argv);

}  // namespace graft
