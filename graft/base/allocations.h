#pragma once

#include <atomic>
#include <cstdint>

namespace graft {

// What this process has allocated so far: calls of operator new, where the program counts them (cli/main.cc does; a library cannot), and
// Buffers.
struct AllocationCount {
  std::atomic<int64_t> calls{0}, bytes{0};
  void add(int64_t size) {
    calls.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(size, std::memory_order_relaxed);
  }
};
inline AllocationCount allocation_count;

}  // namespace graft
