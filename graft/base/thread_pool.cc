#include "graft/base/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace graft {
namespace {

// About 20 µs: longer than the serial work between two kernels of a plan, short enough not to burn an idle core.
constexpr int kSpins = 4000;
thread_local bool inside_region = false;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t expected) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>* word) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

struct ThreadPool::State {
  alignas(64) std::atomic<uint32_t> generation{0};  // rises by one per region; workers wait on it
  std::atomic<uint32_t> sleepers{0};
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<uint32_t> finished{0};
  alignas(64) int64_t num_tasks = 0;
  Call call = nullptr;
  void* closure = nullptr;
  int num_threads = 1, limit = 1;
  std::vector<std::thread> threads;

  void work(int worker) {
    for (;;) {
      const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= num_tasks) return;
      call(closure, task, worker);
    }
  }

  void loop(int worker) {
    const KeepSubnormals keep;
    inside_region = true;
    uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          pause();
          continue;
        }
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        if (generation.load(std::memory_order_seq_cst) == seen) futex_wait(&generation, seen);
        sleepers.fetch_sub(1, std::memory_order_seq_cst);
        spins = 0;
      }
      ++seen;
      if (stop.load(std::memory_order_relaxed)) return;
      if (worker < limit) work(worker);
      finished.fetch_add(1, std::memory_order_release);
    }
  }

  void start_generation() {
    generation.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) > 0) futex_wake(&generation);
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  state_->num_threads = state_->limit = std::max(1, num_threads);
  for (int i = 1; i < state_->num_threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), i] { state->loop(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_relaxed);
  state_->start_generation();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::num_threads() const { return state_->limit; }

ThreadLimit::ThreadLimit(ThreadPool& pool, int threads) : pool_(&pool), kept_(pool.state_->limit) {
  pool.state_->limit = std::clamp(threads, 1, kept_);
}
ThreadLimit::~ThreadLimit() { pool_->state_->limit = kept_; }

void ThreadPool::run(int64_t num_tasks, Call call, void* closure) noexcept {
  if (num_tasks <= 0) return;
  if (state_->limit == 1 || num_tasks == 1 || inside_region) {
    const bool was_inside = inside_region;
    const KeepSubnormals keep;
    inside_region = true;
    for (int64_t task = 0; task < num_tasks; ++task) call(closure, task, 0);
    inside_region = was_inside;
    return;
  }
  State& s = *state_;
  s.num_tasks = num_tasks;
  s.call = call;
  s.closure = closure;
  s.next.store(0, std::memory_order_relaxed);
  s.finished.store(0, std::memory_order_relaxed);
  s.start_generation();
  {
    const KeepSubnormals keep;
    inside_region = true;
    s.work(0);
    inside_region = false;
  }
  // Every worker checks in, even one that found no task: the next region may then reuse the fields.
  const auto others = static_cast<uint32_t>(s.num_threads - 1);
  for (int spins = 0; s.finished.load(std::memory_order_acquire) != others; ++spins) {
    pause();
    if (spins > kSpins) std::this_thread::yield();
  }
}

KeepSubnormals::KeepSubnormals() {
#if defined(__x86_64__)
  saved_ = _mm_getcsr();
  if ((saved_ & 0x8040u) != 0) _mm_setcsr(static_cast<unsigned>(saved_) & ~0x8040u);
#elif defined(__aarch64__)
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
  if ((saved_ & (1u << 24)) != 0) __asm__ volatile("msr fpcr, %0" ::"r"(saved_ & ~uint64_t{1u << 24}));
#else
  saved_ = 0;
#endif
}

KeepSubnormals::~KeepSubnormals() {
#if defined(__x86_64__)
  if ((saved_ & 0x8040u) != 0) _mm_setcsr(static_cast<unsigned>(saved_));
#elif defined(__aarch64__)
  if ((saved_ & (1u << 24)) != 0) __asm__ volatile("msr fpcr, %0" ::"r"(saved_));
#endif
}

}  // namespace graft
