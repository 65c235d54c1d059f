#pragma once

#include <string>

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

struct MachineReport {
  std::string cpu, level;  // model name; instruction set in force
  int threads = 1, cores = 1;
  double fma_gflops = 0, bf16_dot_gflops = 0, read_gbps = 0, copy_gbps = 0;
};
MachineReport measure_machine(ThreadPool& pool);

}  // namespace graft
