#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/json.h"
#include "graft/base/thread_pool.h"

namespace graft {

// How a call may be run: under a CPU level, with so many threads of the pool. In f32 every choice gives the same bits (design, point 8), so a
// router may choose by speed alone; between algorithms whose results differ the choice stands in code (kernels/algorithm.h).
struct RouteChoice {
  CpuLevel level = CpuLevel::kScalar;
  int threads = 1;
  double ns = 0;  // of one call: measured, between measured sizes interpolated, or estimated
};

struct Route {
  RouteChoice best;
  std::vector<RouteChoice> considered;  // quickest first
  bool measured = false;                // by graft kernel tune; else estimated
};

// What the estimator knows of a machine: bandwidth and peak of one thread and of all (0: not measured, taken to grow with the threads), and what a call
// and a parallel region cost before they do anything. The peak is that of the level in force; of AVX2 beside AVX-512 it is half, of scalar code a sixteenth.
struct MachineConstants {
  double gbps_one = 10, gbps_all = 0;
  double gflops_one = 40, gflops_all = 0;
  double start_ns = 50, region_ns = 2500;
};

// The table that `graft kernel tune` measured on this machine, or in its absence the estimator
//   time = max(bytes / bandwidth, operations / peak) + start cost        (spec/kernels.md, section 24)
// Sizes are elements of a kernel's main input.
class Router {
 public:
  struct Measured {
    int64_t size = 0;
    std::vector<RouteChoice> choices;
  };

  Router() = default;
  // The router of this machine: its table is read once from cache_path(). A table that is broken, of another machine or of another build is one warning, and
  // the estimator decides.
  static const Router& of_this_machine();

  // The quickest of what the CPU level in force and `threads` allow. bytes and flops: of this call, for the estimator.
  Route route(std::string_view kernel, int64_t size, double bytes, double flops, int threads) const;

  // What may be chosen among: the levels in force that have code of their own, and 1, 2, 4, … threads up to `threads`.
  static std::vector<RouteChoice> candidates(int threads);

  bool has(std::string_view kernel) const { return table_.contains(kernel); }
  const MachineConstants& constants() const { return constants_; }
  void set_constants(const MachineConstants& constants) { constants_ = constants; }
  // Measured choices of a kernel at a size, which replace what is known of it.
  void learn(std::string_view kernel, Measured measured);
  // Replaces what is known of the kernels that `other` has, and the constants.
  void merge(const Router& other);

  // The table as JSON with the machine it is of. from_json throws Error where it is not whole, of another machine or of another build; `where` is
  // the file for the message.
  Json to_json() const;
  static Router from_json(const Json& json, std::string_view where);
  static Router load(const std::string& path);
  void save(const std::string& path) const;  // atomically; makes the folder

  // $XDG_CACHE_HOME/graft/kernel_routes-KEY.json (XDG_CACHE_HOME: ~/.cache), KEY a hash of machine and build; empty where there is no home.
  static std::string cache_path();

 private:
  std::map<std::string, std::vector<Measured>, std::less<>> table_;  // sizes ascending
  MachineConstants constants_;
};

// A route's level and threads in force while alive. `pool` is the one the call will use.
class RouteScope {
 public:
  RouteScope(const RouteChoice& choice, ThreadPool& pool) : level_(choice.level), threads_(pool, choice.threads) {}

 private:
  CpuLevelScope level_;
  ThreadLimit threads_;
};

}  // namespace graft
