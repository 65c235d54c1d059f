// The rows of the fused kernels of training in the registry.

#include "graft/kernels/optimizer_rows.h"
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

ClipMode clip_mode_of(const KernelCall& call) {
  const std::string mode = call.word("clip_mode", "value");
  GRAFT_CHECK(mode == "value" || mode == "norm", "parameter 'clip_mode' is '{}', expected value or norm",
              printable(mode, 40));
  return mode == "value" ? ClipMode::kValue : ClipMode::kNorm;
}
ScratchNeed prepare_adam_clip(KernelCall& call) {
  prepare_moments(call);
  GRAFT_CHECK(call.real("clip", 1) >= 0, "parameter 'clip' is {}, expected 0 or more", call.real("clip", 1));
  adam_step(call);
  if (clip_mode_of(call) == ClipMode::kValue) return {};
  call.make("norm", DType::kF32, {1});
  return sum_squares_scratch(static_cast<int64_t>(call.in<float>("grad").size()));
}
void example_adam_clip(KernelCall& call, int64_t size, uint64_t seed) {
  example_adam(call, size, seed);
  call.set_parameter("clip", "0.5");
  call.set_parameter("clip_mode", seed % 2 == 0 ? "value" : "norm");
}
void run_adam_clip(Context& context, KernelCall& call) {
  const ClipMode mode = clip_mode_of(call);
  const float norm =
      fused_adam_clip_update(context, adam_step(call), mode, call.real("clip", 1), call.in<float>("grad"),
                             call.out<float>("param"), call.out<float>("m"), call.out<float>("v"));
  if (mode == ClipMode::kNorm) call.out<float>("norm")[0] = norm;
}
double adam_clip_bytes(const KernelCall& call) {
  return (call.word("clip_mode", "value") == "norm" ? 32 : 28) * length_of(call, "grad");
}
double adam_clip_flops(const KernelCall& call) { return 17 * length_of(call, "grad"); }

constexpr std::string_view kDomain = "fused_custom";

constexpr KernelInfo kRows[] = {
    {"fused_softmax_cross_entropy", kDomain, "loss[R] of logits[R,C]; grad[R,C] = grad_scale (softmax - onehot)",
     cross_entropy_bytes, cross_entropy_flops, prepare_cross_entropy, run_cross_entropy, example_cross_entropy},
    {"fused_adam_clip_update", kDomain, "opt_adamw of grad[N] clipped by value or norm", adam_clip_bytes,
     adam_clip_flops, prepare_adam_clip, run_adam_clip, example_adam_clip},
};

}  // namespace

std::span<const KernelInfo> fused_training_kernels() { return kRows; }

}  // namespace graft
