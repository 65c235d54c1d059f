#pragma once

// A number handed from task to task of a parallel region: scans and compactions read their input once. Each task sums its own
// part while it is brought into the cache, waits for what stands before it, tells the next task, and only then writes (decoupled
// look-back with one predecessor: Merrill and Garland 2016). It ends because the pool hands tasks out in ascending order: whoever
// holds an earlier task is running it.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

#include "graft/kernels/context.h"

namespace graft {

class CarryChain {
 public:
  static ScratchNeed scratch(int64_t tasks) noexcept {
    return {.shared = sizeof(uint64_t) * static_cast<size_t>(tasks + 1)};
  }
  // Takes the context's shared scratch.
  CarryChain(Context& context, int64_t tasks, uint64_t first) noexcept : slots_(context.shared<uint64_t>()) {
    std::fill_n(slots_, tasks + 1, uint64_t{0});
    slots_[0] = first | kReady;
  }
  // What stands before `task`; `own` is added for the next one.
  uint64_t pass(int64_t task, uint64_t own) noexcept {
    const std::atomic_ref<uint64_t> before(slots_[task]);
    uint64_t value = before.load(std::memory_order_acquire);
    for (int spins = 0; (value & kReady) == 0; ++spins) {
      if (spins > kSpins) std::this_thread::yield();  // the predecessor's thread may have lost its core
      value = before.load(std::memory_order_acquire);
    }
    std::atomic_ref<uint64_t>(slots_[task + 1]).store((value + own) | kReady, std::memory_order_release);
    return value & ~kReady;
  }
  // After the region: what stands behind the last task.
  uint64_t total(int64_t tasks) const noexcept { return slots_[tasks] & ~kReady; }

 private:
  static constexpr uint64_t kReady = uint64_t{1} << 63;
  static constexpr int kSpins = 20000;
  uint64_t* slots_;
};

}  // namespace graft
