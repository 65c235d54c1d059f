// The rows of the selections (select.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/select.h"

namespace graft {
namespace {

ScratchNeed checked_scratch(const KernelCall& call) {
  const size_t n = call.in<float>("x").size();
  GRAFT_CHECK(n <= INT32_MAX, "input 'x' has {} elements, more than an i32 index reaches", n);
  return select_scratch(static_cast<int64_t>(n));
}

ScratchNeed prepare_topk(KernelCall& call) {
  const auto n = static_cast<int64_t>(call.in<float>("x").size());
  const int64_t k = call.integer("k", 100);
  GRAFT_CHECK(k >= 0 && k <= n, "parameter 'k' is {}, expected 0 to {}, the elements of 'x'", k, n);
  call.make("values", DType::kF32, {k});
  call.make("indices", DType::kI32, {k});
  return checked_scratch(call);
}
ScratchNeed prepare_median(KernelCall& call) {
  call.make("y", DType::kF32, {1});
  return checked_scratch(call);
}
ScratchNeed prepare_percentile(KernelCall& call) {
  call.in<float>("p");
  call.make("y", DType::kF32, call.in_shape("p"));
  return checked_scratch(call);
}

void run_topk(Context& context, KernelCall& call) {
  topk_select(context, call.in<float>("x"), call.out<float>("values"), call.out<int32_t>("indices"));
}
void run_median(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = median_select(context, call.in<float>("x"));
}
void run_percentile(Context& context, KernelCall& call) {
  percentile_select(context, call.in<float>("x"), call.in<float>("p"), call.out<float>("y"));
}

// The specification's bench has 1M elements at both scales.
void example_vector(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {std::min<int64_t>(size, 1000000)}, seed);
}
void example_topk(KernelCall& call, int64_t size, uint64_t seed) {
  example_vector(call, size, seed);
  call.set_parameter("k", std::to_string(std::min<int64_t>(size, 100)));
}
void example_percentile(KernelCall& call, int64_t size, uint64_t seed) {
  example_vector(call, size, seed);
  constexpr float kP[] = {25, 50, 75, 90, 99};
  std::copy(std::begin(kP), std::end(kP), call.add_input("p", DType::kF32, {5}).data.as<float>().begin());
}

double bytes_of_topk(const KernelCall& call) {
  return 4 * length_of(call, "x") + 8 * static_cast<double>(call.integer("k", 100));
}

}  // namespace

std::span<const KernelInfo> select_kernels() {
  static constexpr std::string_view kDomain = "stats_sorting";
  static constexpr KernelInfo kRows[] = {
      {"topk_select", kDomain, "the k largest of x[N], descending, and their indices", bytes_of_topk, flops_of_x<0, 1>,
       prepare_topk, run_topk, example_topk},
      {"median_select", kDomain, "the middle of sorted x[N]", bytes_of_x<4>, flops_of_x<0, 3>, prepare_median,
       run_median, example_vector},
      {"percentile_select", kDomain, "y[m] at percentiles p[m] of sorted x[N]", bytes_of_x<4>, flops_of_x<0, 3>,
       prepare_percentile, run_percentile, example_percentile},
  };
  return kRows;
}

}  // namespace graft
