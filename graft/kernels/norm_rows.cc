// The rows of the norms (norm.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/norm.h"

namespace graft {
namespace {

// Error unless the inputs `names` have a value for each of `count` columns or channels of x.
void check_length(const KernelCall& call, std::initializer_list<std::string_view> names, int64_t count) {
  for (const std::string_view name : names) {
    const std::span<const float> values = call.in<float>(name);
    GRAFT_CHECK(values.size() == static_cast<size_t>(count),
                "input '{}' has {} elements, expected {}, one for each of x", name, values.size(), count);
  }
}
void check_eps(const KernelCall& call, double otherwise) {
  const double eps = call.real("eps", otherwise);
  GRAFT_CHECK(eps >= 0, "parameter 'eps' is {}, expected 0 or more", eps);
}

ScratchNeed prepare_rms_norm(KernelCall& call) {
  check_length(call, {"gamma"}, call.in_view<float, 2>("x").extent(1));
  check_eps(call, 1e-6);
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}
ScratchNeed prepare_layer_norm(KernelCall& call) {
  check_length(call, {"gamma", "beta"}, call.in_view<float, 2>("x").extent(1));
  check_eps(call, 1e-5);
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}
ScratchNeed prepare_batch_norm(KernelCall& call) {
  const View<const float, 3> x = call.in_view<float, 3>("x");
  check_length(call, {"gamma", "beta", "running_mean", "running_var"}, x.extent(1));
  check_eps(call, 1e-5);
  call.real("momentum", 0.1);
  GRAFT_CHECK(!call.flag("training", true) || x.size() == 0 || x.extent(0) * x.extent(2) >= 2,
              "input 'x' has one value for each channel, expected two or more in training");
  call.make("y", DType::kF32, call.in_shape("x"));
  call.make("running_mean", DType::kF32, {x.extent(1)});
  call.make("running_var", DType::kF32, {x.extent(1)});
  return batch_norm_scratch(x.extent(1), x.extent(2));
}
ScratchNeed prepare_group_norm(KernelCall& call) {
  const View<const float, 3> x = call.in_view<float, 3>("x");
  check_length(call, {"gamma", "beta"}, x.extent(1));
  check_eps(call, 1e-5);
  const int64_t groups = call.integer("groups", 32);
  GRAFT_CHECK(groups >= 1 && x.extent(1) % groups == 0,
              "parameter 'groups' is {}, expected a divisor of the {} channels of 'x'", groups, x.extent(1));
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}

void add_affine(KernelCall& call, int64_t count, uint64_t seed) {
  add_uniform(call, "gamma", {count}, seed, 0.5f, 1.5f);
  add_uniform(call, "beta", {count}, seed, -0.5f, 0.5f);
}
// 976 x 1024, or 1024 x `wide` at 10,000,000.
std::vector<int64_t> norm_shape(int64_t size, int64_t wide) {
  return size == 10'000'000 ? std::vector<int64_t>{1024, wide} : rows_of_1024(size);
}
void example_rows(KernelCall& call, int64_t size, uint64_t seed) {
  const std::vector<int64_t> shape = norm_shape(size, 9765);
  add_uniform(call, "x", shape, seed);
  add_affine(call, shape[1], seed);
}
void example_batch_norm(KernelCall& call, int64_t size, uint64_t seed) {
  const std::vector<int64_t> shape = size == 1 ? std::vector<int64_t>{2, 1} : norm_shape(size, 9765);
  // One row has no variance: two rows of half the channels.
  const bool one = shape[0] == 1;
  const int64_t rows = one ? 2 : shape[0], channels = one ? std::max<int64_t>(1, shape[1] / 2) : shape[1];
  add_uniform(call, "x", {rows, channels, 1}, seed);
  add_affine(call, channels, seed);
  add_uniform(call, "running_mean", {channels}, seed);
  add_uniform(call, "running_var", {channels}, seed, 0.5f, 2);
}
void example_group_norm(KernelCall& call, int64_t size, uint64_t seed) {
  std::vector<int64_t> shape = norm_shape(size, 9760);
  const int64_t groups = shape[1] % 32 == 0 ? 32 : 1;
  add_uniform(call, "x", {shape[0], shape[1], 1}, seed);
  add_affine(call, shape[1], seed);
  call.set_parameter("groups", std::to_string(groups));
}

void run_rms_norm(Context& context, KernelCall& call) {
  rms_norm<float>(context, call.in_view<float, 2>("x"), call.in<float>("gamma"), call.real("eps", 1e-6),
                  call.out_view<float, 2>("y"), {}, Output::kLeaves);
}
void run_layer_norm(Context& context, KernelCall& call) {
  layer_norm<float>(context, call.in_view<float, 2>("x"), call.in<float>("gamma"), call.in<float>("beta"),
                    call.real("eps", 1e-5), call.out_view<float, 2>("y"), {}, {});
}
void run_batch_norm(Context& context, KernelCall& call) {
  BatchNormArgs args;
  args.gamma = call.in<float>("gamma"), args.beta = call.in<float>("beta");
  args.eps = call.real("eps", 1e-5), args.momentum = call.real("momentum", 0.1);
  args.training = call.flag("training", true);
  args.running_mean = call.out<float>("running_mean"), args.running_var = call.out<float>("running_var");
  // The outputs start as the inputs in every run, so that a repeated one computes the same; in place it goes on.
  const auto start = [&](std::string_view name, std::span<float> to) {
    const std::span<const float> from = call.in<float>(name);
    if (to.data() != from.data()) std::ranges::copy(from, to.begin());
  };
  start("running_mean", args.running_mean);
  start("running_var", args.running_var);
  batch_norm(context, call.in_view<float, 3>("x"), args, call.out_view<float, 3>("y"));
}
void run_group_norm(Context& context, KernelCall& call) {
  group_norm(context, call.in_view<float, 3>("x"), call.in<float>("gamma"), call.in<float>("beta"),
             call.integer("groups", 32), call.real("eps", 1e-5), call.out_view<float, 3>("y"));
}

double batch_norm_bytes(const KernelCall& call) {
  return (call.flag("training", true) ? 12 : 8) * length_of(call, "x");
}
double batch_norm_flops(const KernelCall& call) { return (call.flag("training", true) ? 8 : 2) * length_of(call, "x"); }

}  // namespace

std::span<const KernelInfo> norm_kernels() {
  static constexpr std::string_view kDomain = "normalization";
  static constexpr KernelInfo kRows[] = {
      {"layer_norm", kDomain, "y[R,C] = (x - mean) / sqrt(var + eps) gamma + beta", bytes_of_x<8>, flops_of_x<0, 8>,
       prepare_layer_norm, run_layer_norm, example_rows, "y=x"},
      {"batch_norm", kDomain, "y[N,C,L] = (x - mean) / sqrt(var + eps) gamma + beta per channel; running moments",
       batch_norm_bytes, batch_norm_flops, prepare_batch_norm, run_batch_norm, example_batch_norm,
       "y=x running_mean=running_mean running_var=running_var"},
      {"rms_norm", kDomain, "y[R,C] = x / sqrt(mean x^2 + eps) gamma", bytes_of_x<8>, flops_of_x<0, 4>,
       prepare_rms_norm, run_rms_norm, example_rows, "y=x"},
      {"group_norm", kDomain, "y[N,C,L] = layer norm over C / groups channels", bytes_of_x<8>, flops_of_x<0, 8>,
       prepare_group_norm, run_group_norm, example_group_norm, "y=x"},
  };
  return kRows;
}

}  // namespace graft
