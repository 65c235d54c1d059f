// The rows of the fused kernels of training in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

ScratchNeed prepare_cross_entropy(KernelCall& call) {
  check_targets(call);
  call.real("grad_scale", 1);
  call.make("loss", DType::kF32, {call.in_shape("logits")[0]});
  call.make("grad", DType::kF32, call.in_shape("logits"));
  return {};
}
void example_cross_entropy(KernelCall& call, int64_t size, uint64_t seed) {
  add_logits(call, size, 256, seed);
  call.set_parameter("grad_scale", fmt::format("{}", 1 / length_of(call, "targets")));
}
void run_cross_entropy(Context& context, KernelCall& call) {
  fused_softmax_cross_entropy(context, call.in_view<float, 2>("logits"), call.in<int32_t>("targets"),
                              static_cast<int32_t>(call.integer("ignore_index", -100)), call.real("grad_scale", 1),
                              call.out<float>("loss"), call.out_view<float, 2>("grad"));
}
double cross_entropy_bytes(const KernelCall& call) { return 8 * length_of(call, "logits"); }
double cross_entropy_flops(const KernelCall& call) { return (kTranscendental + 4) * length_of(call, "logits"); }

constexpr std::string_view kDomain = "fused_custom";

constexpr KernelInfo kRows[] = {
    {"fused_softmax_cross_entropy", kDomain, "loss[R] of logits[R,C]; grad[R,C] = grad_scale (softmax - onehot)",
     cross_entropy_bytes, cross_entropy_flops, prepare_cross_entropy, run_cross_entropy, example_cross_entropy},
};

}  // namespace

std::span<const KernelInfo> fused_training_kernels() { return kRows; }

}  // namespace graft
