// The rows of the random numbers (prng.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/prng.h"

namespace graft {
namespace {

// How many draws: parameter "n".
int64_t draws(const KernelCall& call) {
  const int64_t n = call.integer("n", 0);
  GRAFT_CHECK(n >= 0, "parameter 'n' is {}, expected 0 or more", n);
  GRAFT_CHECK(call.natural("first", 0) <= UINT64_MAX - static_cast<uint64_t>(n),
              "parameters 'first' {} and 'n' {} reach beyond the stream's 2^64 draws", call.natural("first", 0), n);
  return n;
}

template <int kBytes>
double bytes_of_draws(const KernelCall& call) {
  return kBytes * static_cast<double>(draws(call));
}
template <int kT10, int kOps>  // tenths of a transcendental, and operations, a draw
double flops_of_draws(const KernelCall& call) {
  return (0.1 * kT10 * kTranscendental + kOps) * static_cast<double>(draws(call));
}

// prng_philox has two forms: counters and keys as inputs, or a range of a stream.
bool bare(const KernelCall& call) { return call.has_input("ctr"); }

double philox_bytes(const KernelCall& call) {
  return bare(call) ? 40 * static_cast<double>(call.in_shape("ctr")[0]) : bytes_of_draws<4>(call);
}
double philox_flops(const KernelCall& call) {
  return bare(call) ? 100 * static_cast<double>(call.in_shape("ctr")[0]) : flops_of_draws<0, 25>(call);
}
ScratchNeed prepare_philox(KernelCall& call) {
  if (!bare(call)) {
    call.make("y", DType::kU32, {draws(call)});
    return {};
  }
  const auto ctr = call.in_view<uint32_t, 2>("ctr"), key = call.in_view<uint32_t, 2>("key");
  GRAFT_CHECK(ctr.extent(1) == 4 && key.extent(1) == 2 && ctr.extent(0) == key.extent(0),
              "inputs 'ctr' [{}] and 'key' [{}], expected [N, 4] and [N, 2]", fmt::join(call.in_shape("ctr"), ", "),
              fmt::join(call.in_shape("key"), ", "));
  call.make("y", DType::kU32, {ctr.extent(0), 4});
  return {};
}
void run_philox(Context& context, KernelCall& call) {
  const auto y = call.out<uint32_t>("y");
  if (bare(call)) {
    prng_philox(context, call.in_view<uint32_t, 2>("ctr"), call.in_view<uint32_t, 2>("key"),
                View<uint32_t, 2>(y.data(), y.size() / 4, 4));
  } else {
    prng_philox(context, call.natural("seed", 0), call.natural("stream", 0), call.natural("first", 0), y);
  }
}

ScratchNeed prepare_values(KernelCall& call) {
  call.make("y", DType::kF32, {draws(call)});
  return {};
}
ScratchNeed prepare_normal(KernelCall& call) {
  GRAFT_CHECK(call.natural("first", 0) % 2 == 0,
              "parameter 'first' is {}, expected an even number: two normals come from one pair of words",
              call.natural("first", 0));
  return prepare_values(call);
}
ScratchNeed prepare_dropout(KernelCall& call) {
  const double keep = call.real("keep_prob", 0.9);
  GRAFT_CHECK(keep >= 0 && keep <= 1, "parameter 'keep_prob' is {}, expected 0 to 1", keep);
  call.make("mask", DType::kU8, {draws(call)});
  return {};
}

using Values = void (*)(Context&, uint64_t, uint64_t, uint64_t, std::span<float>) noexcept;
template <Values kDraw>
void run_values(Context& context, KernelCall& call) {
  kDraw(context, call.natural("seed", 0), call.natural("stream", 0), call.natural("first", 0), call.out<float>("y"));
}
void run_dropout(Context& context, KernelCall& call) {
  prng_dropout_mask(context, call.natural("seed", 0), call.natural("stream", 0), call.natural("first", 0),
                    call.real("keep_prob", 0.9), call.out<uint8_t>("mask"));
}

void example_draws(KernelCall& call, int64_t size, uint64_t seed) {
  call.set_parameter("n", fmt::to_string(size));
  call.set_parameter("first", "0");
  call.set_parameter("seed", fmt::to_string(seed));
  call.set_parameter("stream", "5");
}

}  // namespace

std::span<const KernelInfo> prng_kernels() {
  static constexpr std::string_view kDomain = "prng";
  static constexpr KernelInfo kRows[] = {
      {"prng_philox", kDomain, "y = Philox4x32-10 words: of ctr[N,4], key[N,2], or draws first ... of a stream",
       philox_bytes, philox_flops, prepare_philox, run_philox, example_draws, "y=ctr"},
      {"prng_uniform_f32", kDomain, "y[N] = (word >> 8) 2^-24", bytes_of_draws<4>, flops_of_draws<0, 26>,
       prepare_values, run_values<prng_uniform_f32>, example_draws},
      {"prng_normal_f32", kDomain, "y[N] = sqrt(-2 ln u1) cos or sin 2 pi u2", bytes_of_draws<4>,
       flops_of_draws<15, 26>, prepare_normal, run_values<prng_normal_f32>, example_draws},
      {"prng_dropout_mask", kDomain, "mask[N] = uniform < keep_prob", bytes_of_draws<1>, flops_of_draws<0, 26>,
       prepare_dropout, run_dropout, example_draws},
  };
  return kRows;
}

}  // namespace graft
