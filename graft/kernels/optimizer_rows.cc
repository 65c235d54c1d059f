// The rows of the optimizers (optimizer.h) in the registry. They work in place: prepare starts the outputs as copies of the inputs, and a
// repeated run goes on from there.

#include "graft/kernels/optimizer_rows.h"

namespace graft {
namespace {

ScratchNeed prepare_sgd(KernelCall& call) {
  same_shape(call, "param", "grad");
  call.in<float>("grad");
  copy_to_output(call, "param");
  return {};
}
ScratchNeed prepare_momentum(KernelCall& call) {
  same_shape(call, "param", "velocity");
  copy_to_output(call, "velocity");
  return prepare_sgd(call);
}
ScratchNeed prepare_adam(KernelCall& call) {
  prepare_moments(call);
  return {};
}
ScratchNeed prepare_clip_norm(KernelCall& call) {
  GRAFT_CHECK(call.real("max_norm", 1) >= 0, "parameter 'max_norm' is {}, expected 0 or more",
              call.real("max_norm", 1));
  copy_to_output(call, "grad");
  call.make("norm", DType::kF32, {1});
  return sum_squares_scratch(static_cast<int64_t>(call.in<float>("grad").size()));
}
ScratchNeed prepare_clip_value(KernelCall& call) {
  GRAFT_CHECK(call.real("max_value", 1) >= 0, "parameter 'max_value' is {}, expected 0 or more",
              call.real("max_value", 1));
  copy_to_output(call, "grad");
  return {};
}

void example_sgd(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "param", {size}, seed);
  add_uniform(call, "grad", {size}, seed);
}
void example_momentum(KernelCall& call, int64_t size, uint64_t seed) {
  example_sgd(call, size, seed);
  add_uniform(call, "velocity", {size}, seed);
}
void example_clip_norm(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "grad", {size}, seed);
  call.set_parameter("max_norm", "0.01");
}
void example_clip_value(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "grad", {size}, seed);
  call.set_parameter("max_value", "0.5");
}

void run_sgd(Context& context, KernelCall& call) {
  opt_sgd(context, call.real("lr", 1e-3), call.in<float>("grad"), call.out<float>("param"));
}
void run_momentum(Context& context, KernelCall& call) {
  opt_sgd_momentum(context, call.real("lr", 1e-3), call.real("momentum", 0.9), call.in<float>("grad"),
                   call.out<float>("param"), call.out<float>("velocity"));
}
void run_adam(Context& context, KernelCall& call) {
  opt_adam(context, adam_step(call), call.in<float>("grad"), call.out<float>("param"), call.out<float>("m"),
           call.out<float>("v"));
}
void run_adamw(Context& context, KernelCall& call) {
  opt_adamw(context, adam_step(call), call.in<float>("grad"), call.out<float>("param"), call.out<float>("m"),
            call.out<float>("v"));
}
void run_clip_norm(Context& context, KernelCall& call) {
  const std::span<float> grad = call.out<float>("grad");
  call.out<float>("norm")[0] = grad_clip_norm(context, grad, call.real("max_norm", 1), grad);
}
void run_clip_value(Context& context, KernelCall& call) {
  const std::span<float> grad = call.out<float>("grad");
  grad_clip_value(context, grad, call.real("max_value", 1), grad);
}

template <int kBytes>
double bytes_of_grad(const KernelCall& call) {
  return kBytes * length_of(call, "grad");
}
template <int kOps>
double flops_of_grad(const KernelCall& call) {
  return kOps * length_of(call, "grad");
}

}  // namespace

std::span<const KernelInfo> optimizer_kernels() {
  static constexpr std::string_view kDomain = "optimizers";
  static constexpr KernelInfo kRows[] = {
      {"opt_sgd", kDomain, "param[N] -= lr grad[N]", bytes_of_grad<12>, flops_of_grad<2>, prepare_sgd, run_sgd,
       example_sgd, "param=param"},
      {"opt_sgd_momentum", kDomain, "velocity[N] = momentum velocity + grad[N]; param[N] -= lr velocity",
       bytes_of_grad<20>, flops_of_grad<4>, prepare_momentum, run_momentum, example_momentum,
       "param=param velocity=velocity"},
      {"opt_adam", kDomain, "m[N], v[N], param[N] by Adam with bias correction", bytes_of_grad<28>, flops_of_grad<14>,
       prepare_adam, run_adam, example_adam, "param=param m=m v=v"},
      {"opt_adamw", kDomain, "param[N] *= 1 - lr weight_decay, then opt_adam", bytes_of_grad<28>, flops_of_grad<15>,
       prepare_adam, run_adamw, example_adam, "param=param m=m v=v"},
      {"grad_clip_norm", kDomain, "grad[N] scaled to a norm of at most max_norm; norm", bytes_of_grad<12>,
       flops_of_grad<3>, prepare_clip_norm, run_clip_norm, example_clip_norm, "grad=grad"},
      {"grad_clip_value", kDomain, "grad[N] clamped to [-max_value, max_value]", bytes_of_grad<8>, flops_of_grad<2>,
       prepare_clip_value, run_clip_value, example_clip_value, "grad=grad"},
  };
  return kRows;
}

}  // namespace graft
