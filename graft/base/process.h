#pragma once

#include <cstdint>

namespace graft {

// Resident memory of this process as the system counts it; 0 where it does not say.
int64_t peak_resident_bytes();  // the largest so far (VmHWM)
int64_t resident_bytes();       // now (VmRSS)

}  // namespace graft
