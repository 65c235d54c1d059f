// The rows of the compactions (compact.h) in the registry.

#include "graft/kernels/compact.h"
#include "graft/kernels/kernel_rows.h"

namespace graft {
namespace {

int64_t length(const KernelCall& call) { return static_cast<int64_t>(call.in<float>("x").size()); }

ScratchNeed prepare_compact(KernelCall& call) {
  const int64_t n = length(call);
  GRAFT_CHECK(n <= UINT32_MAX, "input 'x' has {} elements, more than a u32 counts", n);
  call.make("y", DType::kF32, {n});
  call.make("count", DType::kU32, {1});
  return compact_scratch(n);
}
ScratchNeed prepare_if(KernelCall& call) {
  call.real("threshold", 0);
  return prepare_compact(call);
}
ScratchNeed prepare_mask(KernelCall& call) {
  call.in<uint8_t>("mask");
  same_shape(call, "x", "mask");
  return prepare_compact(call);
}

void finish(KernelCall& call, uint32_t count) {
  call.out<uint32_t>("count")[0] = count;
  call.set_length("y", count);
}
// y as prepare made it: a run before this one may have shortened it.
std::span<float> whole_output(KernelCall& call) {
  call.set_length("y", length(call));
  return call.out<float>("y");
}

using If = uint32_t (*)(Context&, std::span<const float>, double, std::span<float>) noexcept;
template <If kCompact>
void run_if(Context& context, KernelCall& call) {
  finish(call, kCompact(context, call.in<float>("x"), call.real("threshold", 0), whole_output(call)));
}
void run_mask(Context& context, KernelCall& call) {
  finish(call, compact_mask(context, call.in<float>("x"), call.in<uint8_t>("mask"), whole_output(call)));
}

// Half of the elements of the examples are kept.
template <int kBytesIn>
double bytes_of_half(const KernelCall& call) {
  return (kBytesIn + 2) * length_of(call, "x");
}

void example_mask(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {size}, seed);
  const auto mask = call.add_input("mask", DType::kU8, {size}).data.as<uint8_t>();
  const RandomStream stream(seed, stream_hash("mask"));
  for (int64_t i = 0; i < size; ++i) {
    mask[static_cast<size_t>(i)] = stream.word(static_cast<uint64_t>(i)) & 1;
  }
}

}  // namespace

std::span<const KernelInfo> compact_kernels() {
  static constexpr std::string_view kDomain = "compaction", kFused = "fused_custom";
  static constexpr KernelInfo kRows[] = {
      {"compact_if", kDomain, "y[K] = the x[N] > threshold in order, and K", bytes_of_half<4>, flops_of_x<0, 1>,
       prepare_if, run_if<compact_if>, example_x},
      {"compact_mask", kDomain, "y[K] = the x[N] with mask[N] in order, and K", bytes_of_half<5>, flops_of_x<0, 1>,
       prepare_mask, run_mask, example_mask},
      {"fused_scan_compact", kFused, "compare, scan and scatter in one: compact_if", bytes_of_half<4>, flops_of_x<0, 1>,
       prepare_if, run_if<fused_scan_compact>, example_x},
  };
  return kRows;
}

}  // namespace graft
