// The rows of the fused kernels of training in the registry.

#include "graft/kernels/norm.h"
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

ScratchNeed prepare_layernorm_dropout(KernelCall& call) {
  const View<const float, 2> x = call.in_view<float, 2>("x");
  for (const std::string_view name : {"gamma", "beta"}) {
    GRAFT_CHECK(call.in<float>(name).size() == static_cast<size_t>(x.extent(1)),
                "input '{}' has {} elements, expected {}, the columns of 'x'", name, call.in<float>(name).size(),
                x.extent(1));
  }
  same_shape(call, "x", "residual");
  call.in<float>("residual");
  if (call.has_input("mask")) {
    same_shape(call, "x", "mask");
    call.in<uint8_t>("mask");
  }
  const double keep = call.real("keep_prob", 0.9), eps = call.real("eps", 1e-5);
  GRAFT_CHECK(keep > 0 && keep <= 1, "parameter 'keep_prob' is {}, expected above 0 and at most 1", keep);
  GRAFT_CHECK(eps >= 0, "parameter 'eps' is {}, expected 0 or more", eps);
  call.natural("seed", 0), call.natural("stream", 0);
  call.make("y", DType::kF32, call.in_shape("x"));
  return layernorm_dropout_scratch(x.extent(1));
}
void example_layernorm_dropout(KernelCall& call, int64_t size, uint64_t seed) {
  const std::vector<int64_t> shape = rows_of_1024(size);
  add_uniform(call, "x", shape, seed);
  add_uniform(call, "residual", shape, seed);
  add_uniform(call, "gamma", {shape[1]}, seed, 0.5f, 1.5f);
  add_uniform(call, "beta", {shape[1]}, seed, -0.5f, 0.5f);
  call.set_parameter("keep_prob", "0.9");
  KernelTensor& mask = call.add_input("mask", DType::kU8, shape);
  const RandomStream stream(seed, stream_hash("mask"));
  for (int64_t i = 0; i < mask.size(); ++i) {
    mask.data.as<uint8_t>()[static_cast<size_t>(i)] = stream.uniform(static_cast<uint64_t>(i)) < 0.9f ? 1 : 0;
  }
}
void run_layernorm_dropout(Context& context, KernelCall& call) {
  DropoutMask mask;
  if (call.has_input("mask")) mask.given = call.in_view<uint8_t, 2>("mask");
  mask.seed = call.natural("seed", 0), mask.stream = call.natural("stream", 0);
  mask.keep_prob = call.real("keep_prob", 0.9);
  fused_layernorm_dropout_residual(context, call.in_view<float, 2>("x"), call.in<float>("gamma"),
                                   call.in<float>("beta"), call.real("eps", 1e-5), mask,
                                   call.in_view<float, 2>("residual"), call.out_view<float, 2>("y"));
}
double layernorm_dropout_bytes(const KernelCall& call) {
  return (call.has_input("mask") ? 13 : 12) * length_of(call, "x");
}

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

}  // namespace

std::span<const KernelInfo> fused_training_kernels() {
  static constexpr std::string_view kDomain = "fused_custom";
  static constexpr KernelInfo kRows[] = {
      {"fused_softmax_cross_entropy", kDomain, "loss[R] of logits[R,C]; grad[R,C] = grad_scale (softmax - onehot)",
       cross_entropy_bytes, cross_entropy_flops, prepare_cross_entropy, run_cross_entropy, example_cross_entropy,
       "grad=logits"},
      {"fused_layernorm_dropout_residual", kDomain, "y[R,C] = layer_norm(x) mask / keep_prob + residual",
       layernorm_dropout_bytes, flops_of_x<0, 11>, prepare_layernorm_dropout, run_layernorm_dropout,
       example_layernorm_dropout, "y=x y=residual"},
      {"fused_adam_clip_update", kDomain, "opt_adamw of grad[N] clipped by value or norm", adam_clip_bytes,
       adam_clip_flops, prepare_adam_clip, run_adam_clip, example_adam_clip, "param=param m=m v=v"},
  };
  return kRows;
}

}  // namespace graft
