#pragma once

#include <string>
#include <vector>

#include "graft/base/thread_pool.h"

namespace graft {

// What a kernel's golden cases gave under one variant.
struct KernelCheck {
  std::string kernel, variant;  // variant: the CPU level, "scalar", "avx2", …
  int64_t cases = 0;
  double error_over_tolerance =
      0;  // the largest |got - want| / (atol + rtol |want|); infinity where nothing may differ and something does
  std::string fault;  // the first case out of tolerance: case, output, element, both values
  bool ok() const { return fault.empty(); }
};

// The variants of this CPU, cheapest first; GRAFT_CPU caps them.
std::vector<std::string> kernel_variants();

// Checks golden files in the format of oracle/README.md: `paths` are files, or folders whose *.safetensors are taken in the
// order of names. `variant` is one of kernel_variants() or "all". Throws Error for a file that is broken, lacks what its
// kernel needs, or names a kernel that is not in the registry.
std::vector<KernelCheck> check_kernels(ThreadPool& pool, const std::vector<std::string>& paths,
                                       const std::string& variant);

}  // namespace graft
