#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/thread_pool.h"
#include "graft/bench/machine.h"
#include "graft/bench/roofs.h"
#include "graft/graph/router.h"
#include "graft/kernels/registry.h"

namespace graft {

// A size of a benchmark: about so many elements of the main input, or a working set of so many last-level caches.
struct BenchSize {
  std::string label;  // as it was given: "64K", "10M", "4xLLC"
  int64_t elements = 0;
  double caches = 0;
};
// "64K" (K = 1,024), "1M" (M = 1,000,000), "2G", "1000" up to 2^30, "4xLLC"; Error for anything else.
BenchSize parse_bench_size(const std::string& text);

// One kernel at one size under one variant and number of threads. Its result was compared before it was timed.
struct KernelTiming {
  std::string kernel, domain, variant, size;  // size: the label
  int64_t elements = 0;
  std::string shape;  // the inputs: "x[1000000]"
  int threads = 1;
  int samples = 0;
  double least_ns = 0, q1_ns = 0, median_ns = 0, q3_ns = 0;  // of one call
  double bytes = 0, flops = 0;                               // as the specification counts them
  // Its bound: the longer of bytes over the bandwidth of its mix and working set, and operations over the peak of multiply-adds, both measured
  // in turns with the kernel. The share is bound / median.
  double bound_ns = 0, limit_share = 0, roof = 0;  // roof: GB/s or GFLOP/s
  std::string limit;                               // "copy memory", "read L2", "FMA"
  double gbps() const { return bytes / median_ns; }
  double gflops() const { return flops / median_ns; }
  // More than the limit by over 15 %: the bytes, the operations or the clock are wrong.
  bool beyond_limit() const { return limit_share > 1.15; }
};

struct TimingOptions {
  std::string variant;  // a CPU level's name
  int threads = 1;
  double seconds = 0.1;  // of timed calls; at least five samples
  bool with_limit = true;
  int least_samples = 5;
};

// Prepares one call after the other and times it as asked. Threads of the process: one pool for each number that was asked for.
class KernelBench {
 public:
  KernelBench();
  ~KernelBench();
  // Makes the inputs and what a variant's result is compared with: the scalar reference's, or under 2 G operations' worth of scalar
  // time the next best. Throws Error where the kernel refuses the call, or where it would need more than 1 GiB.
  void prepare(const KernelInfo& kernel, const BenchSize& size, uint64_t seed = 0, bool with_reference = true);
  // Error where the result differs from the reference's: in a bit, or for a kernel outside the contract by more than 1e-4 of the value plus 1e-5 of
  // the largest.
  KernelTiming time(const TimingOptions& options);
  // The time of a call for each choice, in ns, all in turns for about `seconds`: their medians. What takes more than `drop` times the quickest in a first
  // round is left out of the rest and keeps that round's time. Nothing is compared.
  std::vector<double> compete(const std::vector<RouteChoice>& choices, double seconds, double drop);

  const KernelCall& call() const { return call_; }
  int64_t elements() const { return elements_; }
  ThreadPool& pool(int threads);
  BandwidthRoofs& roofs(int threads);
  double peak(int threads);  // GFLOP/s of multiply-adds: the second best of many short tries, now

 private:
  struct Team;
  Team& team(int threads);
  void compare(const TimingOptions& options) const;
  const KernelInfo* kernel_ = nullptr;
  BenchSize size_;
  int64_t elements_ = 0;
  KernelCall call_;
  std::map<std::string, std::vector<std::byte>, std::less<>> wanted_;
  std::map<int, std::unique_ptr<Team>> teams_;
};

// The kernels that are named, by name or by domain, in the order of the registry; all where nothing is. Error (wrong usage) with every unknown word.
std::vector<const KernelInfo*> select_kernels(const std::vector<std::string>& words);

// Writes a call as a safetensors file: in.NAME, out.NAME, and param.NAME in the metadata, as a case of a golden file.
void dump_call(const KernelCall& call, const std::string& path);

// "x[1000000], mask[1000000]"
std::string inputs_text(const KernelCall& call);

}  // namespace graft
