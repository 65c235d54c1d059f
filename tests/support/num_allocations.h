#pragma once

#include <atomic>
#include <cstdint>

namespace graft::test {

// Calls of operator new since the start; counted where a file of the binary includes count_allocations.h.
inline std::atomic<int64_t> num_allocations{0};

}  // namespace graft::test
