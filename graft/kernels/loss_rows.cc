// The rows of the losses in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

ScratchNeed prepare_cross_entropy(KernelCall& call) {
  check_targets(call);
  if (call.has_input("weight")) {
    const int64_t columns = call.in_shape("logits")[1];
    GRAFT_CHECK(call.in<float>("weight").size() == static_cast<size_t>(columns),
                "input 'weight' has {} elements, expected {}, the columns of 'logits'", call.in<float>("weight").size(),
                columns);
  }
  call.make("per_row", DType::kF32, {call.in_shape("logits")[0]});
  call.make("sum", DType::kF32, {1});
  call.make("mean", DType::kF32, {1});
  return {};
}

void example_cross_entropy(KernelCall& call, int64_t size, uint64_t seed) { add_logits(call, size, 100, seed); }

void run_cross_entropy(Context& context, KernelCall& call) {
  const std::span<const float> weight = call.has_input("weight") ? call.in<float>("weight") : std::span<const float>();
  const LossValue loss =
      loss_cross_entropy(context, call.in_view<float, 2>("logits"), call.in<int32_t>("targets"), weight,
                         static_cast<int32_t>(call.integer("ignore_index", -100)), call.out<float>("per_row"));
  call.out<float>("sum")[0] = loss.sum;
  call.out<float>("mean")[0] = loss.mean;
}

double cross_entropy_bytes(const KernelCall& call) {
  return 4 * length_of(call, "logits") + 8 * length_of(call, "targets");
}
double cross_entropy_flops(const KernelCall& call) { return (kTranscendental + 2) * length_of(call, "logits"); }

constexpr std::string_view kDomain = "losses";

constexpr KernelInfo kRows[] = {
    {"loss_cross_entropy", kDomain, "per_row[R] = w[t] (ln sum e^logits[R,C] - logits[t]); sum; mean",
     cross_entropy_bytes, cross_entropy_flops, prepare_cross_entropy, run_cross_entropy, example_cross_entropy},
};

}  // namespace

std::span<const KernelInfo> loss_kernels() { return kRows; }

}  // namespace graft
