#pragma once

#include <span>
#include <string_view>

#include "graft/kernels/kernel_call.h"

namespace graft {

// One row per kernel of the suite. `graft kernel list`, `check` and `bench`, the tests and the generated reference read this table
// and nothing else. A family's rows stand in its FAMILY_rows.cc; registry.cc lists the families.
struct KernelInfo {
  std::string_view name, domain;
  std::string_view contract;  // formula and shapes in a line
  // Bytes that must move from and to memory at least, and operations, of a call (spec: columns B and F).
  double (*bytes)(const KernelCall& call);
  double (*flops)(const KernelCall& call);
  // Checks inputs and parameters, makes the outputs and tells the scratch that run() takes from the context. Throws Error. Called by
  // prepare() below alone.
  ScratchNeed (*setup)(KernelCall& call);
  // Computes the outputs; may be repeated. Allocates nothing.
  void (*run)(Context& context, KernelCall& call);
  // Inputs and parameters of a call of about `size` elements of the main input; sizes of 1,000,000 and 10,000,000 give the
  // specification's bench shapes.
  void (*example)(KernelCall& call, int64_t size, uint64_t seed);
  // Outputs that may lie where an input does, as "output=input" words; all other overlaps are errors.
  std::string_view in_place = {};
  // Why the variants may differ in bits, and the bound; empty where they do not (design, point 8). Threads never change a bit.
  std::string_view outside_contract = {};

  // The checked entry: everything that run() relies on, overlap of borrowed memory included, holds afterwards, or Error is thrown.
  ScratchNeed prepare(KernelCall& call) const {
    call.begin(in_place);
    return setup(call);
  }
};

std::span<const KernelInfo> kernel_registry();         // in the order of the specification
const KernelInfo* find_kernel(std::string_view name);  // null if there is none

// The families' rows.
std::span<const KernelInfo> attention_kernels();
std::span<const KernelInfo> compact_kernels();
std::span<const KernelInfo> correlation_kernels();
std::span<const KernelInfo> fft_kernels();
std::span<const KernelInfo> fused_attention_kernels();
std::span<const KernelInfo> fused_training_kernels();
std::span<const KernelInfo> layout_kernels();
std::span<const KernelInfo> linalg_kernels();
std::span<const KernelInfo> loss_kernels();
std::span<const KernelInfo> map_kernels();
std::span<const KernelInfo> norm_kernels();
std::span<const KernelInfo> optimizer_kernels();
std::span<const KernelInfo> prng_kernels();
std::span<const KernelInfo> quantize_kernels();
std::span<const KernelInfo> reduce_kernels();
std::span<const KernelInfo> scan_kernels();
std::span<const KernelInfo> select_kernels();
std::span<const KernelInfo> signal_kernels();
std::span<const KernelInfo> similarity_kernels();
std::span<const KernelInfo> simulation_kernels();
std::span<const KernelInfo> softmax_kernels();
std::span<const KernelInfo> sort_kernels();

}  // namespace graft
