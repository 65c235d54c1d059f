#pragma once

#include <cstdint>

namespace graft {

// Resident memory of this process as the system counts it; 0 where it does not say.
int64_t peak_resident_bytes();  // the largest so far (VmHWM)
int64_t resident_bytes();       // now (VmRSS)

// Gives back the pages of code and constants, the program's and its libraries', that have been touched so far: most of them
// by start-up alone, which builds every subcommand's flags and relocates every library. Those needed again are mapped again
// from the page cache. Memory that start-up allocated and freed goes back too. Does nothing
// under a debugger, whose breakpoints are such pages changed.
void drop_startup_pages();

}  // namespace graft
