// The rows of the elementwise maps (map.h) in the registry.

#include <array>

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/map.h"

namespace graft {
namespace {

ScratchNeed prepare_unary(KernelCall& call) {
  call.in<float>("x");
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}
ScratchNeed prepare_binary(KernelCall& call) {
  call.in<float>("a"), call.in<float>("b");
  same_shape(call, "a", "b");
  call.make("y", DType::kF32, call.in_shape("a"));
  return {};
}
ScratchNeed prepare_fma(KernelCall& call) {
  call.in<float>("c");
  same_shape(call, "a", "c");
  return prepare_binary(call);
}
ScratchNeed prepare_compare(KernelCall& call) {
  call.in<float>("a"), call.in<float>("b");
  same_shape(call, "a", "b");
  call.make("mask", DType::kU8, call.in_shape("a"));
  return {};
}

void example_positive(KernelCall& call, int64_t size, uint64_t seed) { add_uniform(call, "x", {size}, seed, 0.1f, 2); }
void example_binary(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "a", {size}, seed);
  add_uniform(call, "b", {size}, seed, 0.5f, 1.5f);
}
void example_fma(KernelCall& call, int64_t size, uint64_t seed) {
  example_binary(call, size, seed);
  add_uniform(call, "c", {size}, seed);
}

template <int kBytes>
double bytes_of_a(const KernelCall& call) {
  return kBytes * length_of(call, "a");
}
template <int kOps>
double flops_of_a(const KernelCall& call) {
  return kOps * length_of(call, "a");
}

using Unary = void (*)(Context&, std::span<const float>, std::span<float>) noexcept;
template <Unary kMap>
void run_unary(Context& context, KernelCall& call) {
  kMap(context, call.in<float>("x"), call.out<float>("y"));
}
using Binary = void (*)(Context&, std::span<const float>, std::span<const float>, std::span<float>) noexcept;
template <Binary kMap>
void run_binary(Context& context, KernelCall& call) {
  kMap(context, call.in<float>("a"), call.in<float>("b"), call.out<float>("y"));
}

float real(const KernelCall& call, std::string_view name, double otherwise) {
  return static_cast<float>(call.real(name, otherwise));
}

Comparison comparison_of(const KernelCall& call) {
  constexpr std::array<std::string_view, 6> kNames = {"eq", "ne", "lt", "le", "gt", "ge"};
  const std::string op = call.word("op", "gt");
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (op == kNames[i]) return static_cast<Comparison>(i);
  }
  fail("parameter 'op' is '{}', expected one of {}", printable(op, 40), fmt::join(kNames, ", "));
}

GeluForm gelu_form_of(const KernelCall& call) {
  const std::string form = call.word("approximate", "tanh");
  GRAFT_CHECK(form == "tanh" || form == "none", "parameter 'approximate' is '{}', expected tanh or none",
              printable(form, 40));
  return form == "tanh" ? GeluForm::kTanh : GeluForm::kErf;
}

ScratchNeed prepare_gelu(KernelCall& call) {
  gelu_form_of(call);
  return prepare_unary(call);
}
ScratchNeed prepare_compare_op(KernelCall& call) {
  comparison_of(call);
  return prepare_compare(call);
}

void run_clamp(Context& context, KernelCall& call) {
  map_clamp(context, call.in<float>("x"), real(call, "lo", -1), real(call, "hi", 1), call.out<float>("y"));
}
void run_leaky_relu(Context& context, KernelCall& call) {
  map_leaky_relu(context, call.in<float>("x"), real(call, "alpha", 0.01), call.out<float>("y"));
}
void run_elu(Context& context, KernelCall& call) {
  map_elu(context, call.in<float>("x"), real(call, "alpha", 1), call.out<float>("y"));
}
void run_gelu(Context& context, KernelCall& call) {
  map_gelu(context, call.in<float>("x"), gelu_form_of(call), call.out<float>("y"));
}
void run_fma(Context& context, KernelCall& call) {
  map_fma(context, call.in<float>("a"), call.in<float>("b"), call.in<float>("c"), call.out<float>("y"));
}
void run_compare(Context& context, KernelCall& call) {
  map_compare(context, call.in<float>("a"), call.in<float>("b"), comparison_of(call), call.out<uint8_t>("mask"));
}

constexpr std::string_view kUnaryDomain = "elementwise_unary", kActivation = "activations",
                           kBinaryDomain = "elementwise_binary";

}  // namespace

std::span<const KernelInfo> map_kernels() {
  static constexpr KernelInfo kRows[] = {
      {"map_exp", kUnaryDomain, "y[N] = e^x", bytes_of_x<8>, flops_of_x<1, 0>, prepare_unary, run_unary<map_exp>,
       example_x, "y=x"},
      {"map_log", kUnaryDomain, "y[N] = ln x", bytes_of_x<8>, flops_of_x<1, 0>, prepare_unary, run_unary<map_log>,
       example_positive, "y=x"},
      {"map_sigmoid", kUnaryDomain, "y[N] = 1 / (1 + e^-x)", bytes_of_x<8>, flops_of_x<1, 3>, prepare_unary,
       run_unary<map_sigmoid>, example_x, "y=x"},
      {"map_tanh", kUnaryDomain, "y[N] = tanh x", bytes_of_x<8>, flops_of_x<1, 0>, prepare_unary, run_unary<map_tanh>,
       example_x, "y=x"},
      {"map_softplus", kUnaryDomain, "y[N] = ln(1 + e^x)", bytes_of_x<8>, flops_of_x<2, 3>, prepare_unary,
       run_unary<map_softplus>, example_x, "y=x"},
      {"map_clamp", kUnaryDomain, "y[N] = min(max(x, lo), hi)", bytes_of_x<8>, flops_of_x<0, 2>, prepare_unary,
       run_clamp, example_x, "y=x"},
      {"map_abs", kUnaryDomain, "y[N] = |x|", bytes_of_x<8>, flops_of_x<0, 1>, prepare_unary, run_unary<map_abs>,
       example_x, "y=x"},

      {"map_relu", kActivation, "y[N] = max(x, 0)", bytes_of_x<8>, flops_of_x<0, 1>, prepare_unary, run_unary<map_relu>,
       example_x, "y=x"},
      {"map_leaky_relu", kActivation, "y[N] = x > 0 ? x : alpha x", bytes_of_x<8>, flops_of_x<0, 2>, prepare_unary,
       run_leaky_relu, example_x, "y=x"},
      {"map_elu", kActivation, "y[N] = x > 0 ? x : alpha (e^x - 1)", bytes_of_x<8>, flops_of_x<1, 2>, prepare_unary,
       run_elu, example_x, "y=x"},
      {"map_gelu", kActivation, "y[N] = x Phi(x), or its tanh form", bytes_of_x<8>, flops_of_x<1, 8>, prepare_gelu,
       run_gelu, example_x, "y=x"},
      {"map_silu", kActivation, "y[N] = x sigmoid(x)", bytes_of_x<8>, flops_of_x<1, 4>, prepare_unary,
       run_unary<map_silu>, example_x, "y=x"},
      {"map_mish", kActivation, "y[N] = x tanh(softplus x)", bytes_of_x<8>, flops_of_x<1, 7>, prepare_unary,
       run_unary<map_mish>, example_x, "y=x"},

      {"map_add", kBinaryDomain, "y[N] = a + b", bytes_of_a<12>, flops_of_a<1>, prepare_binary, run_binary<map_add>,
       example_binary, "y=a y=b"},
      {"map_mul", kBinaryDomain, "y[N] = a b", bytes_of_a<12>, flops_of_a<1>, prepare_binary, run_binary<map_mul>,
       example_binary, "y=a y=b"},
      {"map_div", kBinaryDomain, "y[N] = a / b", bytes_of_a<12>, flops_of_a<1>, prepare_binary, run_binary<map_div>,
       example_binary, "y=a y=b"},
      {"map_fma", kBinaryDomain, "y[N] = a b + c, rounded once", bytes_of_a<16>, flops_of_a<2>, prepare_fma, run_fma,
       example_fma, "y=a y=b y=c"},
      {"map_compare", kBinaryDomain, "mask[N] = a op b", bytes_of_a<9>, flops_of_a<1>, prepare_compare_op, run_compare,
       example_binary},
  };
  return kRows;
}

}  // namespace graft
