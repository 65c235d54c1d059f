#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace graft {

// Persistent workers; the caller is worker 0. A region costs about a microsecond: workers spin for a while before they sleep.
// Regions never nest: parallel() inside a task runs its tasks in place. One thread at a time may call parallel().
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;  // those that work: what a ThreadLimit leaves

  // Calls f(task, worker) once for every task in [0, num_tasks); tasks are handed out in ascending order, worker is in
  // [0, num_threads). Returns when all are done. f must not throw. Nothing is allocated.
  template <typename F>
  void parallel(int64_t num_tasks, F&& f) noexcept {
    run(
        num_tasks,
        [](void* g, int64_t task, int worker) { (*static_cast<std::remove_reference_t<F>*>(g))(task, worker); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  friend class ThreadLimit;
  using Call = void (*)(void*, int64_t, int);
  void run(int64_t num_tasks, Call call, void* closure) noexcept;
  struct State;
  std::unique_ptr<State> state_;
};

// Keeps all but `threads` workers of a pool from taking tasks while alive; more than there are is no limit. For the thread that calls parallel().
class ThreadLimit {
 public:
  ThreadLimit(ThreadPool& pool, int threads);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  ThreadPool* pool_;
  int kept_;
};

// Gradual underflow on for this thread while alive (flush-to-zero and denormals-are-zero off); restored afterwards.
class KeepSubnormals {
 public:
  KeepSubnormals();
  ~KeepSubnormals();
  KeepSubnormals(const KeepSubnormals&) = delete;
  KeepSubnormals& operator=(const KeepSubnormals&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace graft
