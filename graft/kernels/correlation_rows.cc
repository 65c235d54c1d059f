// The rows of correlation and covariance (correlation.h) in the registry.

#include <cmath>

#include "graft/kernels/correlation.h"
#include "graft/kernels/kernel_rows.h"

namespace graft {
namespace {

template <const char* kOther, const char* kOutput>
ScratchNeed prepare_pair(KernelCall& call) {
  const auto n = static_cast<int64_t>(call.in<float>("x").size());
  call.in<float>(kOther);
  same_shape(call, "x", kOther);
  call.make(kOutput, DType::kF32, {1});
  return correlation_scratch(n);
}
constexpr char kX[] = "x", kY[] = "y", kW[] = "w", kC[] = "c", kR[] = "r";

int64_t ddof_of(const KernelCall& call) {
  const int64_t ddof = call.integer("ddof", 1);
  GRAFT_CHECK(ddof >= 0, "parameter 'ddof' is {}, expected 0 or more", ddof);
  return ddof;
}
ScratchNeed prepare_covariance(KernelCall& call) {
  ddof_of(call);
  return prepare_pair<kY, kC>(call);
}

template <const char* kOutput>
ScratchNeed prepare_matrix(KernelCall& call) {
  const auto x = call.in_view<float, 2>("x");
  GRAFT_CHECK(x.extent(1) <= 1 << 15, "input 'x' has {} columns, expected at most 32768", x.extent(1));
  call.make(kOutput, DType::kF32, {x.extent(1), x.extent(1)});
  return covariance_scratch(x.extent(0), x.extent(1));
}
ScratchNeed prepare_covariance_matrix(KernelCall& call) {
  ddof_of(call);
  return prepare_matrix<kC>(call);
}

void run_correlation(Context& context, KernelCall& call) {
  call.out<float>("r")[0] = reduce_correlation(context, call.in<float>("x"), call.in<float>("y"));
}
void run_covariance(Context& context, KernelCall& call) {
  call.out<float>("c")[0] = reduce_covariance(context, call.in<float>("x"), call.in<float>("y"), ddof_of(call));
}
void run_weighted_sum(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = reduce_weighted_sum(context, call.in<float>("x"), call.in<float>("w"));
}
void run_weighted_mean(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = reduce_weighted_mean(context, call.in<float>("x"), call.in<float>("w"));
}
void run_covariance_matrix(Context& context, KernelCall& call) {
  reduce_covariance_matrix(context, call.in_view<float, 2>("x"), ddof_of(call), call.out_view<float, 2>("c"));
}
void run_pearson(Context& context, KernelCall& call) {
  reduce_pearson_pairwise(context, call.in_view<float, 2>("x"), call.out_view<float, 2>("r"));
}

void example_pair(KernelCall& call, int64_t size, uint64_t seed) {
  const auto x = add_uniform(call, kX, {size}, seed);
  const auto y = add_uniform(call, kY, {size}, seed);
  for (size_t i = 0; i < y.size(); ++i) y[i] = 0.6f * x[i] + 0.8f * y[i];
}
void example_weighted(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, kX, {size}, seed);
  add_uniform(call, kW, {size}, seed, 0, 2);
}
void example_matrix(KernelCall& call, int64_t size, uint64_t seed) {
  const auto quarter = static_cast<int64_t>(std::sqrt(static_cast<double>(size)) / 4);
  const int64_t columns = std::clamp<int64_t>(quarter, 1, 64);
  add_uniform(call, kX, {size / columns, columns}, seed);
}

double bytes_of_matrix(const KernelCall& call) {
  const double columns = static_cast<double>(call.in_shape("x")[1]);
  return 4 * length_of(call, "x") + 4 * columns * columns;
}
double flops_of_matrix(const KernelCall& call) {
  return length_of(call, "x") * static_cast<double>(call.in_shape("x")[1] + 2);
}

}  // namespace

std::span<const KernelInfo> correlation_kernels() {
  static constexpr std::string_view kDomain = "correlation";
  static constexpr KernelInfo kRows[] = {
      {"reduce_correlation", kDomain, "Pearson's r of x[N], y[N]", bytes_of_x<8>, flops_of_x<0, 7>,
       prepare_pair<kY, kR>, run_correlation, example_pair},
      {"reduce_covariance", kDomain, "sum of (x[N] - mean)(y[N] - mean) / (N - ddof)", bytes_of_x<8>, flops_of_x<0, 5>,
       prepare_covariance, run_covariance, example_pair},
      {"reduce_weighted_sum", kDomain, "sum of w[N] x[N]", bytes_of_x<8>, flops_of_x<0, 2>, prepare_pair<kW, kY>,
       run_weighted_sum, example_weighted},
      {"reduce_weighted_mean", kDomain, "sum of w[N] x[N] / sum of w", bytes_of_x<8>, flops_of_x<0, 3>,
       prepare_pair<kW, kY>, run_weighted_mean, example_weighted},
      {"reduce_covariance_matrix", kDomain, "c[C, C] of the columns of x[R, C]", bytes_of_matrix, flops_of_matrix,
       prepare_covariance_matrix, run_covariance_matrix, example_matrix},
      {"reduce_pearson_pairwise", kDomain, "r[C, C] of the columns of x[R, C]", bytes_of_matrix, flops_of_matrix,
       prepare_matrix<kR>, run_pearson, example_matrix},
  };
  return kRows;
}

}  // namespace graft
