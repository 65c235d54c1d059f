#include "graft/kernels/registry.h"

#include <algorithm>
#include <vector>

namespace graft {
namespace {

constexpr std::span<const KernelInfo> (*kFamilies[])() = {
    reduce_kernels,           // reductions, fused map-reduce
    correlation_kernels,      // correlation
    map_kernels,              // elementwise, activations
    scan_kernels,             // scans
    compact_kernels,          // compaction, fused_scan_compact
    similarity_kernels,       // dot products, similarity
    quantize_kernels,         // quantization
    layout_kernels,           // layout
    sort_kernels,             // sorting
    select_kernels,           // selection
    softmax_kernels,          // softmax
    norm_kernels,             // normalization
    attention_kernels,        // attention and positions
    loss_kernels,             // losses
    optimizer_kernels,        // optimizers
    fft_kernels,              // Fourier transforms
    signal_kernels,           // signal
    linalg_kernels,           // linear algebra
    simulation_kernels,       // simulation
    prng_kernels,             // random numbers
    fused_training_kernels,   // fused kernels of training
    fused_attention_kernels,  // fused kernels of attention
};

}  // namespace

std::span<const KernelInfo> kernel_registry() {
  static const std::vector<KernelInfo> rows = [] {
    std::vector<KernelInfo> all;
    for (const auto family : kFamilies) {
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
