#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graft/bench/kernel_bench.h"
#include "graft/graph/router.h"

namespace graft {

struct TuneOptions {
  double seconds = 150;  // in all, about: long calls may take a little more
  bool quick = false;    // fewer sizes
  int threads = 1;       // at most
  std::function<void(const std::string& line)> progress;
};

// Measures every choice of every kernel at sizes from 256 elements to 10 million (quick: 1,024 to a million), in turns, and gives the router of this machine.
// Kernels whose larger sizes would not fit their share of the time are measured up to where they do.
Router tune_kernels(KernelBench& bench, const std::vector<const KernelInfo*>& kernels, const TuneOptions& options);

// Bandwidth, peak and start cost, now: a tenth of a second.
MachineConstants measure_constants(KernelBench& bench, int threads);

// How far a router's choice is from the best of a kernel at a size.
struct RoutedTiming {
  std::string kernel;
  int64_t elements = 0;
  RouteChoice best, routed;  // with their times, taken in turns
  bool measured = false;     // the router's table had the kernel
  double distance() const { return routed.ns / best.ns - 1; }
};
// For the call that `bench` has prepared.
RoutedTiming compare_route(KernelBench& bench, const KernelInfo& kernel, const Router& router, int threads,
                           double seconds);

// Sizes that --routed looks at where none are given: those of tuning, and halfway between them.
std::vector<int64_t> routed_sizes();

}  // namespace graft
