#include "graft/kernels/registry.h"

#include <algorithm>
#include <vector>

namespace graft {

std::span<const KernelInfo> kernel_registry() {
  static const std::vector<KernelInfo> rows = [] {
    std::vector<KernelInfo> all;
    for (const auto family : {
             reduce_kernels,
             map_kernels,
             layout_kernels,
             softmax_kernels,
             loss_kernels,
             fused_training_kernels,
         }) {
      const auto some = family();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }();
  return rows;
}

const KernelInfo* find_kernel(std::string_view name) {
  const auto rows = kernel_registry();
  const auto at = std::find_if(rows.begin(), rows.end(), [&](const KernelInfo& k) { return k.name == name; });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace graft
