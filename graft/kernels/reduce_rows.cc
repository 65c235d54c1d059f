// The rows of the reductions (reduce.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/reduce.h"

namespace graft {
namespace {

ScratchNeed need_of(const KernelCall& call) { return reduce_scratch(static_cast<int64_t>(call.in<float>("x").size())); }

ScratchNeed prepare_number(KernelCall& call) {
  call.make("y", DType::kF32, {1});
  return need_of(call);
}
ScratchNeed prepare_extreme(KernelCall& call) {
  GRAFT_CHECK(!call.in<float>("x").empty(), "input 'x' is empty, expected at least one element");
  return prepare_number(call);
}
ScratchNeed prepare_arg(KernelCall& call) {
  GRAFT_CHECK(!call.in<float>("x").empty(), "input 'x' is empty, expected at least one element");
  GRAFT_CHECK(call.in<float>("x").size() <= INT32_MAX, "input 'x' has {} elements, more than an i32 index reaches",
              call.in<float>("x").size());
  call.make("value", DType::kF32, {1});
  call.make("index", DType::kI32, {1});
  return need_of(call);
}
ScratchNeed prepare_masked(KernelCall& call) {
  call.in<uint8_t>("mask");
  same_shape(call, "x", "mask");
  return prepare_number(call);
}
ScratchNeed prepare_count(KernelCall& call) {
  call.make("count", DType::kU32, {1});
  return need_of(call);
}
ScratchNeed prepare_histogram(KernelCall& call) {
  const int64_t bins = call.integer("bins", 256);
  GRAFT_CHECK(bins >= 1 && bins <= 1 << 20, "parameter 'bins' is {}, expected 1 to 1048576", bins);
  GRAFT_CHECK(call.real("lo", -1) < call.real("hi", 1), "parameter 'lo' is {}, expected below 'hi' {}",
              call.real("lo", -1), call.real("hi", 1));
  call.in<float>("x");
  call.make("counts", DType::kU32, {bins});
  return histogram_scratch(bins);
}
ScratchNeed prepare_moment(KernelCall& call) {
  GRAFT_CHECK(call.integer("ddof", 0) >= 0, "parameter 'ddof' is {}, expected 0 or more", call.integer("ddof", 0));
  return prepare_number(call);
}

void example_masked(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {size}, seed);
  KernelTensor& mask = call.add_input("mask", DType::kU8, {size});
  const RandomStream stream(seed, stream_hash("mask"));
  for (int64_t i = 0; i < size; ++i)
    mask.data.as<uint8_t>()[static_cast<size_t>(i)] = stream.word(static_cast<uint64_t>(i)) & 1;
}

using Number = float (*)(Context&, std::span<const float>) noexcept;
template <Number kReduce>
void run_number(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = kReduce(context, call.in<float>("x"));
}
using Moment = float (*)(Context&, std::span<const float>, int64_t) noexcept;
template <Moment kReduce>
void run_moment(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = kReduce(context, call.in<float>("x"), call.integer("ddof", 0));
}
using Arg = ArgValue (*)(Context&, std::span<const float>) noexcept;
template <Arg kReduce>
void run_arg(Context& context, KernelCall& call) {
  const ArgValue found = kReduce(context, call.in<float>("x"));
  call.out<float>("value")[0] = found.value;
  call.out<int32_t>("index")[0] = found.index;
}
void run_histogram(Context& context, KernelCall& call) {
  reduce_histogram(context, call.in<float>("x"), static_cast<float>(call.real("lo", -1)),
                   static_cast<float>(call.real("hi", 1)), call.out<uint32_t>("counts"));
}
void run_masked(Context& context, KernelCall& call) {
  call.out<float>("y")[0] = map_reduce_masked_sum(context, call.in<float>("x"), call.in<uint8_t>("mask"));
}
void run_count(Context& context, KernelCall& call) {
  call.out<uint32_t>("count")[0] =
      map_reduce_threshold_count(context, call.in<float>("x"), static_cast<float>(call.real("threshold", 0)));
}

}  // namespace

std::span<const KernelInfo> reduce_kernels() {
  static constexpr std::string_view kDomain = "reductions", kFused = "fused_map_reduce";
  static constexpr KernelInfo kRows[] = {
      {"reduce_sum", kDomain, "sum of x[N]", bytes_of_x<4>, flops_of_x<0, 1>, prepare_number, run_number<reduce_sum>,
       example_x},
      {"reduce_mean", kDomain, "sum of x[N] / N", bytes_of_x<4>, flops_of_x<0, 1>, prepare_number,
       run_number<reduce_mean>, example_x},
      {"reduce_min", kDomain, "least of x[N]", bytes_of_x<4>, flops_of_x<0, 1>, prepare_extreme, run_number<reduce_min>,
       example_x},
      {"reduce_max", kDomain, "greatest of x[N]", bytes_of_x<4>, flops_of_x<0, 1>, prepare_extreme,
       run_number<reduce_max>, example_x},
      {"reduce_l2", kDomain, "sqrt(sum of x[N]^2)", bytes_of_x<4>, flops_of_x<0, 2>, prepare_number,
       run_number<reduce_l2>, example_x},
      {"reduce_var", kDomain, "sum of (x[N] - mean)^2 / (N - ddof)", bytes_of_x<4>, flops_of_x<0, 3>, prepare_moment,
       run_moment<reduce_var>, example_x},
      {"reduce_stddev", kDomain, "sqrt of reduce_var", bytes_of_x<4>, flops_of_x<0, 3>, prepare_moment,
       run_moment<reduce_stddev>, example_x},
      {"reduce_histogram", kDomain, "counts[bins] of x[N] over [lo, hi]", bytes_of_x<4>, flops_of_x<0, 3>,
       prepare_histogram, run_histogram, example_x},
      {"reduce_argmax", kDomain, "greatest of x[N] and its first index", bytes_of_x<4>, flops_of_x<0, 1>, prepare_arg,
       run_arg<reduce_argmax>, example_x},
      {"reduce_argmin", kDomain, "least of x[N] and its first index", bytes_of_x<4>, flops_of_x<0, 1>, prepare_arg,
       run_arg<reduce_argmin>, example_x},

      {"map_reduce_square_sum", kFused, "sum of x[N]^2", bytes_of_x<4>, flops_of_x<0, 2>, prepare_number,
       run_number<map_reduce_square_sum>, example_x},
      {"map_reduce_abs_sum", kFused, "sum of |x[N]|", bytes_of_x<4>, flops_of_x<0, 2>, prepare_number,
       run_number<map_reduce_abs_sum>, example_x},
      {"map_reduce_masked_sum", kFused, "sum of x[N] where mask[N]", bytes_of_x<5>, flops_of_x<0, 1>, prepare_masked,
       run_masked, example_masked},
      {"map_reduce_threshold_count", kFused, "count of x[N] > threshold", bytes_of_x<4>, flops_of_x<0, 1>,
       prepare_count, run_count, example_x},
  };
  return kRows;
}

}  // namespace graft
