// The rows of the conversions (quantize.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/quantize.h"

namespace graft {
namespace {

ScratchNeed prepare_to_i8(KernelCall& call) {
  const auto x = call.in_view<f16, 2>("x");
  call.make("q", DType::kI8, call.in_shape("x"));
  call.make("scale", DType::kF32, {x.extent(0)});
  return quantize_scratch(x.extent(0), x.extent(1));
}
ScratchNeed prepare_from_i8(KernelCall& call) {
  const auto q = call.in_view<int8_t, 2>("q");
  GRAFT_CHECK(call.in_shape("scale") == std::vector<int64_t>{q.extent(0)},
              "input 'scale' is [{}], expected [{}], the rows of 'q'", fmt::join(call.in_shape("scale"), ", "),
              q.extent(0));
  call.in<float>("scale");
  call.make("x", DType::kF16, call.in_shape("q"));
  return {};
}
ScratchNeed prepare_to_f16(KernelCall& call) {
  call.in<float>("x");
  call.make("y", DType::kF16, call.in_shape("x"));
  return {};
}

void run_to_i8(Context& context, KernelCall& call) {
  quantize_f16_to_i8(context, call.in_view<f16, 2>("x"), call.out_view<int8_t, 2>("q"), call.out<float>("scale"));
}
void run_from_i8(Context& context, KernelCall& call) {
  dequantize_i8_to_f16(context, call.in_view<int8_t, 2>("q"), call.in<float>("scale"), call.out_view<f16, 2>("x"));
}
void run_to_f16(Context& context, KernelCall& call) {
  quantize_f32_to_f16(context, call.in<float>("x"), call.out<f16>("y"));
}

void example_halves(KernelCall& call, int64_t size, uint64_t seed) {
  const auto x = call.add_input("x", DType::kF16, {1, size}).data.as<f16>();
  const RandomStream stream(seed, stream_hash("x"));
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) x[i] = to_f16(static_cast<float>(stream.uniform(i) * 2 - 1));
}
void example_bytes(KernelCall& call, int64_t size, uint64_t seed) {
  const auto q = call.add_input("q", DType::kI8, {1, size}).data.as<int8_t>();
  const RandomStream stream(seed, stream_hash("q"));
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
    q[i] = static_cast<int8_t>(static_cast<int>(stream.word(i) % 255) - 127);
  }
  add_uniform(call, "scale", {1}, seed, 0.01f, 0.1f);
}

// Reading a row a second time, where it leaves the cache, comes on top.
double bytes_to_i8(const KernelCall& call) {
  const double columns = static_cast<double>(call.in_shape("x")[1]);
  const double reads = columns * 2 > (1 << 20) ? 2 : 1;
  return (2 * reads + 1) * length_of(call, "x") + 4 * static_cast<double>(call.in_shape("x")[0]);
}
double bytes_from_i8(const KernelCall& call) { return 3 * length_of(call, "q") + 4 * length_of(call, "scale"); }
double flops_from_i8(const KernelCall& call) { return length_of(call, "q"); }

}  // namespace

std::span<const KernelInfo> quantize_kernels() {
  static constexpr std::string_view kDomain = "quantization";
  static constexpr KernelInfo kRows[] = {
      {"quantize_f16_to_i8", kDomain, "scale[R] = max |x| / 127, q[R, C] = round(x / scale)", bytes_to_i8,
       flops_of_x<0, 4>, prepare_to_i8, run_to_i8, example_halves},
      {"dequantize_i8_to_f16", kDomain, "x[R, C] = q[R, C] scale[R], rounded to f16", bytes_from_i8, flops_from_i8,
       prepare_from_i8, run_from_i8, example_bytes},
      {"quantize_f32_to_f16", kDomain, "y[N] = x rounded to f16", bytes_of_x<6>, flops_of_x<0, 1>, prepare_to_f16,
       run_to_f16, example_x},
  };
  return kRows;
}

}  // namespace graft
