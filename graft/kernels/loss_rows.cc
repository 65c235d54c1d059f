// The rows of the losses in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/pointwise_loss.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

ScratchNeed prepare_loss_ce(KernelCall& call) {
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

void example_loss_ce(KernelCall& call, int64_t size, uint64_t seed) { add_logits(call, size, 100, seed); }

void run_loss_ce(Context& context, KernelCall& call) {
  const std::span<const float> weight = call.has_input("weight") ? call.in<float>("weight") : std::span<const float>();
  const LossValue loss =
      loss_cross_entropy(context, call.in_view<float, 2>("logits"), call.in<int32_t>("targets"), weight,
                         static_cast<int32_t>(call.integer("ignore_index", -100)), call.out<float>("per_row"));
  call.out<float>("sum")[0] = loss.sum;
  call.out<float>("mean")[0] = loss.mean;
}

double loss_ce_bytes(const KernelCall& call) { return 4 * length_of(call, "logits") + 8 * length_of(call, "targets"); }
double loss_ce_flops(const KernelCall& call) { return (kTranscendental + 2) * length_of(call, "logits"); }

ScratchNeed prepare_pair(KernelCall& call, std::string_view mean) {
  same_shape(call, "pred", "target");
  call.in<float>("target");
  call.make("sum", DType::kF32, {1});
  call.make(mean, DType::kF32, {1});
  return pointwise_loss_scratch(static_cast<int64_t>(call.in<float>("pred").size()));
}
ScratchNeed prepare_pointwise(KernelCall& call) { return prepare_pair(call, "mean"); }
ScratchNeed prepare_huber(KernelCall& call) {
  GRAFT_CHECK(call.real("delta", 1) > 0, "parameter 'delta' is {}, expected above 0", call.real("delta", 1));
  return prepare_pointwise(call);
}
constexpr double kKlEps = 1e-10, kBceEps = 0x1.ad7f2ap-24;  // 1e-7f
ScratchNeed prepare_kl_div(KernelCall& call) {
  call.in_view<float, 2>("pred");
  GRAFT_CHECK(call.real("eps", kKlEps) >= 0, "parameter 'eps' is {}, expected 0 or more", call.real("eps", kKlEps));
  return prepare_pair(call, "batchmean");
}
ScratchNeed prepare_bce(KernelCall& call) {
  const double eps = call.real("eps", kBceEps);
  GRAFT_CHECK(eps >= 0x1p-126 && eps < 0.5, "parameter 'eps' is {}, expected 1.2e-38 to 0.5", eps);
  return prepare_pointwise(call);
}

void example_targets(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "pred", {size}, seed);
  add_uniform(call, "target", {size}, seed);
}
void example_kl_div(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t columns = std::min<int64_t>(size, 100);
  for (const std::string_view name : {"pred", "target"}) {
    add_uniform(call, name, {size / columns, columns}, seed, 0.001f, 0.019f);  // rows of 100 sum to about 1
  }
}
void example_bce(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "pred", {size}, seed, 0.001f, 0.999f);
  for (float& t : add_uniform(call, "target", {size}, seed, 0, 1)) t = t < 0.5f ? 0.0f : 1.0f;
}

void set_loss(KernelCall& call, std::string_view mean, const LossValue& loss) {
  call.out<float>("sum")[0] = loss.sum;
  call.out<float>(mean)[0] = loss.mean;
}
void run_mse(Context& context, KernelCall& call) {
  set_loss(call, "mean", loss_mse(context, call.in<float>("pred"), call.in<float>("target")));
}
void run_mae(Context& context, KernelCall& call) {
  set_loss(call, "mean", loss_mae(context, call.in<float>("pred"), call.in<float>("target")));
}
void run_huber(Context& context, KernelCall& call) {
  set_loss(call, "mean", loss_huber(context, call.in<float>("pred"), call.in<float>("target"), call.real("delta", 1)));
}
void run_kl_div(Context& context, KernelCall& call) {
  set_loss(call, "batchmean",
           loss_kl_div(context, call.in<float>("pred"), call.in<float>("target"), call.in_shape("pred")[0],
                       call.real("eps", kKlEps)));
}
void run_bce(Context& context, KernelCall& call) {
  set_loss(call, "mean",
           loss_bce(context, call.in<float>("pred"), call.in<float>("target"), call.real("eps", kBceEps)));
}

template <int kT, int kOps>
double flops_of_pred(const KernelCall& call) {
  return (kT * kTranscendental + kOps) * length_of(call, "pred");
}
double pair_bytes(const KernelCall& call) { return 8 * length_of(call, "pred"); }

}  // namespace

std::span<const KernelInfo> loss_kernels() {
  static constexpr std::string_view kDomain = "losses";
  static constexpr KernelInfo kRows[] = {
      {"loss_cross_entropy", kDomain, "per_row[R] = w[t] (ln sum e^logits[R,C] - logits[t]); sum; mean", loss_ce_bytes,
       loss_ce_flops, prepare_loss_ce, run_loss_ce, example_loss_ce},
      {"loss_mse", kDomain, "sum of (pred[N] - target[N])^2; mean", pair_bytes, flops_of_pred<0, 3>, prepare_pointwise,
       run_mse, example_targets},
      {"loss_mae", kDomain, "sum of |pred[N] - target[N]|; mean", pair_bytes, flops_of_pred<0, 3>, prepare_pointwise,
       run_mae, example_targets},
      {"loss_huber", kDomain, "sum of d^2 / 2 or delta (d - delta / 2), d = |pred[N] - target[N]|; mean", pair_bytes,
       flops_of_pred<0, 5>, prepare_huber, run_huber, example_targets},
      {"loss_kl_div", kDomain, "sum of target[R,C] ln(target / max(pred[R,C], eps)); batchmean", pair_bytes,
       flops_of_pred<2, 2>, prepare_kl_div, run_kl_div, example_kl_div},
      {"loss_bce", kDomain, "sum of -(target[N] ln pred[N] + (1 - target) ln(1 - pred)); mean", pair_bytes,
       flops_of_pred<2, 5>, prepare_bce, run_bce, example_bce},
  };
  return kRows;
}

}  // namespace graft
