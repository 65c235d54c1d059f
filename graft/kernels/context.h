#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/thread_pool.h"

namespace graft {

// Scratch a kernel asks for: one block that all workers share, and one block per worker. Bytes.
struct ScratchNeed {
  size_t shared = 0;
  size_t per_worker = 0;
  // Kernels run one after the other, so needs combine by maximum.
  void merge(const ScratchNeed& other) {
    shared = std::max(shared, other.shared);
    per_worker = std::max(per_worker, other.per_worker);
  }
};

// What every kernel is handed: the threads, and scratch that was reserved before the run (each kernel family states its need
// in a NAME_scratch function). Blocks are 64-byte aligned; their content does not outlive a kernel call.
class Context {
 public:
  explicit Context(ThreadPool& pool) : pool_(&pool), workers_(static_cast<size_t>(pool.num_threads())) {}

  ThreadPool& pool() const { return *pool_; }
  int num_threads() const { return pool_->num_threads(); }

  // Grows the blocks; call when a plan is made. Kernels only take what is there.
  void reserve(const ScratchNeed& need) {
    if (need.shared > shared_.bytes()) shared_ = Buffer(need.shared);
    for (Buffer& block : workers_) {
      if (need.per_worker > block.bytes()) block = Buffer(need.per_worker);
    }
  }
  ScratchNeed reserved() const { return {shared_.bytes(), workers_.front().bytes()}; }

  template <typename T>
  T* shared() const {
    return reinterpret_cast<T*>(shared_.data());
  }
  template <typename T>
  T* worker(int index) const {
    return reinterpret_cast<T*>(workers_[static_cast<size_t>(index)].data());
  }

 private:
  ThreadPool* pool_;
  Buffer shared_;
  std::vector<Buffer> workers_;
};

}  // namespace graft
