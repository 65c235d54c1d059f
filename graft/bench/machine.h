#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/thread_pool.h"

namespace graft {

// What this machine can do at best, measured now with the pool's threads and the CPU level in force; each the second
// best of several short runs, so that neither a moment of other load nor a jump of the clock moves the roof. Rates are
// per second: GFLOP/s (10^9 operations) and GB/s (10^9 bytes).
double measure_fma_gflops(ThreadPool& pool);  // f32 fused multiply-adds from registers (2 operations each)
double measure_bf16_dot_gflops(
    ThreadPool& pool);                       // bf16 dot products from registers or tiles; 0 without the instruction
double measure_read_gbps(ThreadPool& pool);  // reading memory far beyond the caches, 8 streams per thread
double measure_copy_gbps(ThreadPool& pool);  // copying: bytes read plus bytes written

// One of these limits, measured a little at a time: in turns with what is compared with it, where the speed of the machine
// drifts (the other tenants of a host take memory bandwidth and clock within seconds).
class Roof {
 public:
  enum class Kind { kFma, kBf16Dot, kRead };
  // Finds how much work takes about `seconds`. kRead allocates 200 MB a thread.
  Roof(ThreadPool& pool, Kind kind, double seconds = 0.06);
  double measure();  // GFLOP/s or GB/s, now; 0 where the CPU lacks the instruction

 private:
  double once(int64_t units);  // seconds
  ThreadPool* pool_;
  std::function<void(int64_t thread, int64_t units)> work_;
  double per_unit_ = 0;  // 10^9 operations or bytes of all threads
  int64_t units_ = 0;
  Buffer data_;
};

// Least, median and most of what was measured several times.
struct Spread {
  double least = 0, median = 0, most = 0;
  static Spread of(std::vector<double> values);
};

struct MachineReport {
  std::string cpu, level;  // model name; instruction set in force
  int threads = 1, cores = 1;
  double fma_gflops = 0, bf16_dot_gflops = 0, read_gbps = 0, copy_gbps = 0;
};
MachineReport measure_machine(ThreadPool& pool);

}  // namespace graft
