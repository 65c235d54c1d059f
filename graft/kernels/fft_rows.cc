// The rows of the Fourier transforms (fft.h) in the registry.

#include <cmath>

#include "graft/kernels/fft.h"
#include "graft/kernels/kernel_rows.h"

namespace graft {
namespace {

int64_t complex_length(const KernelCall& call) {
  const auto x = call.in_view<float, 2>("x");
  GRAFT_CHECK(x.extent(1) == 2, "input 'x' is [{}], expected [N, 2]: real and imaginary parts",
              fmt::join(call.in_shape("x"), ", "));
  return x.extent(0);
}

// A complex transform's length: `allowed` names what it must be.
template <bool (*kAllowed)(int64_t)>
ScratchNeed prepare_complex(KernelCall& call) {
  const int64_t n = complex_length(call);
  GRAFT_CHECK(n >= 1 && kAllowed(n),
              "input 'x' has {} complex numbers, expected a length of this radix; ifft takes any, and padding is "
              "another transform",
              n);
  call.make("y", DType::kF32, {n, 2});
  return fft_scratch(*cached_fft_plan(n));
}
bool any_length(int64_t /*n*/) { return true; }
bool power_of_two(int64_t n) { return (n & (n - 1)) == 0; }
bool power_of_four(int64_t n) { return power_of_two(n) && (n & 0x5555555555555555) != 0; }

using Transform = void (*)(Context&, const FftPlan&, std::span<const float>, std::span<float>) noexcept;
template <Transform kTransform>
void run_complex(Context& context, KernelCall& call) {
  const auto x = call.in<float>("x");
  kTransform(context, *cached_fft_plan(static_cast<int64_t>(x.size() / 2)), x, call.out<float>("y"));
}

ScratchNeed prepare_real(KernelCall& call) {
  const auto n = static_cast<int64_t>(call.in_view<float, 1>("x").size());
  GRAFT_CHECK(n >= 2 && n % 2 == 0, "input 'x' has {} samples, expected an even number of at least 2", n);
  call.make("y", DType::kF32, {n / 2 + 1, 2});
  return fft_scratch(*cached_fft_plan(n / 2, true));
}
void run_real(Context& context, KernelCall& call) {
  const auto x = call.in<float>("x");
  fft_real(context, *cached_fft_plan(static_cast<int64_t>(x.size() / 2), true), x, call.out<float>("y"));
}

ScratchNeed prepare_power(KernelCall& call) {
  call.real("factor", 1);
  call.flag("one_sided", false);
  call.make("y", DType::kF32, {complex_length(call)});
  return {};
}
void run_power(Context& context, KernelCall& call) {
  spectral_power(context, call.in<float>("x"), call.real("factor", 1), call.flag("one_sided", false),
                 call.out<float>("y"));
}

// The power of `base` next to `size`; 2^20 for 1M and more, as the specification has it.
int64_t near_power(int64_t size, int64_t base) {
  int64_t n = 1;
  while (n * base <= size + size / 20 && n * base <= int64_t{1} << 20) n *= base;
  return n;
}
template <int kBase>
void example_complex(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {near_power(size, kBase), 2}, seed);
}
void example_real(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {std::max<int64_t>(2, near_power(size, 2))}, seed);
}
// Any length is welcome where the specification names none.
void example_inverse(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {size >= 1000000 ? int64_t{1} << 20 : size, 2}, seed);
}
void example_power(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {size >= 1000000 ? (1 << 19) + 1 : size, 2}, seed);
}

template <int kBytes>
double bytes_of_complex(const KernelCall& call) {
  return kBytes * length_of(call, "x") / 2;
}
template <int kHundredths>  // operations per element and level, of N log2 N
double flops_of_transform(const KernelCall& call) {
  const double n = static_cast<double>(call.in_shape("x")[0]);
  return 0.01 * kHundredths * n * std::log2(std::max(n, 2.0));
}

double flops_of_power(const KernelCall& call) { return 1.5 * length_of(call, "x"); }

}  // namespace

std::span<const KernelInfo> fft_kernels() {
  static constexpr std::string_view kDomain = "fft";
  static constexpr KernelInfo kRows[] = {
      {"fft_radix2", kDomain, "y[N,2] = sum of x[N,2] e^(-2 pi i n k / N), N a power of two", bytes_of_complex<16>,
       flops_of_transform<500>, prepare_complex<power_of_two>, run_complex<fft_radix2>, example_complex<2>, "y=x"},
      {"fft_radix4", kDomain, "the same, N a power of four", bytes_of_complex<16>, flops_of_transform<425>,
       prepare_complex<power_of_four>, run_complex<fft_radix4>, example_complex<4>, "y=x"},
      {"ifft", kDomain, "y[N,2] = sum of x[N,2] e^(2 pi i n k / N) / N, any N", bytes_of_complex<16>,
       flops_of_transform<500>, prepare_complex<any_length>, run_complex<ifft>, example_inverse, "y=x"},
      {"fft_real", kDomain, "y[N/2+1,2] = bins 0 ... N/2 of real x[N], N even", bytes_of_x<8>, flops_of_transform<250>,
       prepare_real, run_real, example_real, "y=x"},
      {"spectral_power", kDomain, "y[M] = factor (re^2 + im^2) of x[M,2]", bytes_of_complex<12>, flops_of_power,
       prepare_power, run_power, example_power},
  };
  return kRows;
}

}  // namespace graft
