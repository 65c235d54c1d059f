#pragma once

#include <string>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/thread_pool.h"

namespace graft {

// What a kernel's golden cases gave under one variant, those of all its files together.
struct KernelCheck {
  std::string kernel, variant;  // variant: the CPU level, "scalar", "avx2", …
  int64_t cases = 0;
  double error_over_tolerance =
      0;  // the largest |got - want| / (atol + rtol |want|); infinity where nothing may differ and something does
  std::string fault;  // the first case out of tolerance: file, case, output, element, both values
  bool ok() const { return fault.empty(); }
};

struct KernelCheckReport {
  std::vector<KernelCheck> results;  // kernels as they came, the variants of each together
  std::vector<Error> errors;         // one for each file that could not be checked, or whose rest could not
  bool ok() const;
};

// The variants of this CPU, cheapest first; GRAFT_CPU caps them.
std::vector<std::string> kernel_variants();
// These variants as levels, or the one that is named. Throws Error for a variant that this CPU has not.
std::vector<CpuLevel> kernel_levels(const std::string& variant);

// Puts the CPU level back.
class LevelGuard {
 public:
  LevelGuard() : kept_(cpu_level()) {}
  ~LevelGuard() { set_cpu_level(kept_); }
  LevelGuard(const LevelGuard&) = delete;
  LevelGuard& operator=(const LevelGuard&) = delete;

 private:
  CpuLevel kept_;
};

// Checks golden files in the format of oracle/README.md: `paths` are files, or folders whose *.safetensors are taken in the
// order of names. `variant` is one of kernel_variants() or "all". A file that is broken, lacks what its kernel needs, or names a kernel
// that is not in the registry is an error of the report, and the others are checked. Throws Error for the variant alone.
KernelCheckReport check_kernels(ThreadPool& pool, const std::vector<std::string>& paths, const std::string& variant);

}  // namespace graft
