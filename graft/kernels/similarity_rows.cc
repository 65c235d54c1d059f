// The rows of the row products (similarity.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/similarity.h"

namespace graft {
namespace {

ScratchNeed prepare_rows(KernelCall& call) {
  const auto a = call.in_view<float, 2>("a");
  call.in_view<float, 2>("b");
  same_shape(call, "a", "b");
  call.make("y", DType::kF32, {a.extent(0)});
  return {};
}
ScratchNeed prepare_cosine(KernelCall& call) {
  const double eps = call.real("eps", 1e-8);
  GRAFT_CHECK(static_cast<float>(eps) > 0, "parameter 'eps' is {}, expected above 0 in f32", eps);
  return prepare_rows(call);
}

void run_dot(Context& context, KernelCall& call) {
  dot_batched(context, call.in_view<float, 2>("a"), call.in_view<float, 2>("b"), call.out<float>("y"));
}
void run_cosine(Context& context, KernelCall& call) {
  cosine_similarity(context, call.in_view<float, 2>("a"), call.in_view<float, 2>("b"), call.real("eps", 1e-8),
                    call.out<float>("y"));
}

void example_row_pairs(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t columns = std::min<int64_t>(size, 128);
  add_uniform(call, "a", {size / columns, columns}, seed);
  add_uniform(call, "b", {size / columns, columns}, seed);
}

double bytes_of_rows(const KernelCall& call) {
  return 8 * length_of(call, "a") + 4 * static_cast<double>(call.in_shape("a")[0]);
}
template <int kOps>
double flops_of_rows(const KernelCall& call) {
  return kOps * length_of(call, "a");
}

}  // namespace

std::span<const KernelInfo> similarity_kernels() {
  static constexpr std::string_view kDomain = "dot_similarity";
  static constexpr KernelInfo kRows[] = {
      {"dot_batched", kDomain, "y[R] = sum of a[R, C] b[R, C] over C", bytes_of_rows, flops_of_rows<2>, prepare_rows,
       run_dot, example_row_pairs},
      {"cosine_similarity", kDomain, "y[R] = a.b / (max(|a|, eps) max(|b|, eps))", bytes_of_rows, flops_of_rows<6>,
       prepare_cosine, run_cosine, example_row_pairs},
  };
  return kRows;
}

}  // namespace graft
