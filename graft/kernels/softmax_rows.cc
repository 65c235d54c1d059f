// The rows of softmax.h's softmaxes in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

ScratchNeed prepare_softmax(KernelCall& call) {
  const View<const float, 2> x = call.in_view<float, 2>("x");
  GRAFT_CHECK(x.extent(1) > 0, "input 'x' is [{}, 0], expected at least one column", x.extent(0));
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}
ScratchNeed prepare_online(KernelCall& call) {
  const ScratchNeed need = prepare_softmax(call);
  for (const std::string_view name : {"row_max", "row_sum"}) call.make(name, DType::kF32, {call.in_shape("x")[0]});
  return need;
}

void example_logit_rows(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", rows_of_1024(size), seed);
}

using Rows = void (*)(Context&, View<const float, 2>, View<float, 2>) noexcept;
template <Rows kMap>
void run_rows(Context& context, KernelCall& call) {
  kMap(context, call.in_view<float, 2>("x"), call.out_view<float, 2>("y"));
}
void run_online(Context& context, KernelCall& call) {
  softmax_online(context, call.in_view<float, 2>("x"), call.out_view<float, 2>("y"), call.out<float>("row_max"),
                 call.out<float>("row_sum"));
}

}  // namespace

std::span<const KernelInfo> softmax_kernels() {
  static constexpr std::string_view kDomain = "softmax";
  static constexpr KernelInfo kRows[] = {
      {"softmax_stable", kDomain, "y[R,C] = e^(x - max) / sum e^(x - max)", bytes_of_x<8>, flops_of_x<1, 4>,
       prepare_softmax, run_rows<softmax_stable>, example_logit_rows, "y=x"},
      {"log_softmax", kDomain, "y[R,C] = x - max - ln sum e^(x - max)", bytes_of_x<8>, flops_of_x<1, 4>,
       prepare_softmax, run_rows<log_softmax>, example_logit_rows, "y=x"},
      {"softmax_online", kDomain, "softmax_stable, row_max[R] and row_sum[R]", bytes_of_x<8>, flops_of_x<2, 6>,
       prepare_online, run_online, example_logit_rows, "y=x"},
  };
  return kRows;
}

}  // namespace graft
