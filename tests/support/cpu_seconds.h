#pragma once

#include <ctime>

namespace graft::test {

// Processor time of this process: a limit on it holds on a machine that does other work too.
inline double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace graft::test
