// The rows of the signal kernels (signal.h) in the registry.

#include <algorithm>
#include <cmath>

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/signal.h"

namespace graft {
namespace {

// The plan of a length, or none for 0.
std::shared_ptr<const FftPlan> plan_of(int64_t length, bool real) {
  return length == 0 ? nullptr : cached_fft_plan(length, real);
}
int64_t size_of(const KernelCall& call, std::string_view name) {
  return static_cast<int64_t>(call.in_view<float, 1>(name).size());
}

Padding padding_of(const KernelCall& call) {
  return static_cast<Padding>(choice<3>(call, "pad", {"zero", "reflect", "circular"}));
}
Window window_of(const KernelCall& call) {
  return static_cast<Window>((choice<4>(call, "window", {"hann", "hamming", "blackman", "rect"}) + 1) % 4);
}

ScratchNeed prepare_filter(KernelCall& call, std::string_view taps_name, int64_t outputs) {
  const int64_t taps = size_of(call, taps_name);
  call.make("y", DType::kF32, {outputs});
  return filter_scratch(outputs, taps, plan_of(filter_fft_length(outputs, taps), false).get());
}
int64_t checked_taps(const KernelCall& call, std::string_view name) {
  const int64_t taps = size_of(call, name);
  GRAFT_CHECK(taps >= 1 && taps <= 1 << 24, "input '{}' has {} taps, expected 1 to {}", name, taps, 1 << 24);
  return taps;
}
ScratchNeed prepare_conv1d(KernelCall& call) {
  const int64_t n = size_of(call, "x"), taps = checked_taps(call, "w");
  GRAFT_CHECK(padding_of(call) != Padding::kReflect || taps / 2 < std::max<int64_t>(n, 1),
              "input 'w' has {} taps and 'x' {} samples: reflection needs half the taps to be fewer", taps, n);
  return prepare_filter(call, "w", n);
}
ScratchNeed prepare_fir(KernelCall& call) {
  checked_taps(call, "h");
  return prepare_filter(call, "h", size_of(call, "x"));
}
ScratchNeed prepare_fft_conv1d(KernelCall& call) {
  const int64_t n = size_of(call, "x"), taps = checked_taps(call, "h");
  GRAFT_CHECK(n >= 1, "input 'x' is empty, expected at least one sample");
  const bool full = choice<2>(call, "mode", {"full", "causal"}) == 0;
  return prepare_filter(call, "h", full ? n + taps - 1 : n);
}

using Filter = void (*)(Context&, const FftPlan*, std::span<const float>, std::span<const float>,
                        std::span<float>) noexcept;
template <Filter kFilter>
void run_filter(Context& context, KernelCall& call) {
  const auto h = call.in<float>("h");
  const auto y = call.out<float>("y");
  const auto plan = plan_of(filter_fft_length(static_cast<int64_t>(y.size()), static_cast<int64_t>(h.size())), false);
  kFilter(context, plan.get(), call.in<float>("x"), h, y);
}
void run_conv1d(Context& context, KernelCall& call) {
  const auto w = call.in<float>("w");
  const auto y = call.out<float>("y");
  const auto plan = plan_of(filter_fft_length(static_cast<int64_t>(y.size()), static_cast<int64_t>(w.size())), false);
  conv1d(context, plan.get(), call.in<float>("x"), w, padding_of(call), y);
}

ScratchNeed prepare_autocorrelation(KernelCall& call) {
  const int64_t n = size_of(call, "x");
  GRAFT_CHECK(n <= 1 << 26, "input 'x' has {} samples, expected at most {}", n, 1 << 26);
  call.flag("demean", false);
  call.flag("normalize", false);
  call.make("y", DType::kF32, {n});
  return autocorrelation_scratch(n, plan_of(autocorrelation_fft_length(n), true).get());
}
void run_autocorrelation(Context& context, KernelCall& call) {
  const auto x = call.in<float>("x");
  const auto plan = plan_of(autocorrelation_fft_length(static_cast<int64_t>(x.size())), true);
  autocorrelation(context, plan.get(), x, call.flag("demean", false), call.flag("normalize", false),
                  call.out<float>("y"));
}

ScratchNeed prepare_cross(KernelCall& call) {
  const int64_t n = size_of(call, "a"), m = size_of(call, "b");
  GRAFT_CHECK(n >= 1 && m >= 1 && n + m <= 1 << 26,
              "inputs 'a' and 'b' have {} and {} samples, expected 1 to {} in all", n, m, 1 << 26);
  call.flag("normalize", false);
  call.make("y", DType::kF32, {n + m - 1});
  return cross_correlation_scratch(n, m, plan_of(cross_correlation_fft_length(n, m), true).get());
}
void run_cross(Context& context, KernelCall& call) {
  const auto a = call.in<float>("a"), b = call.in<float>("b");
  const auto plan =
      plan_of(cross_correlation_fft_length(static_cast<int64_t>(a.size()), static_cast<int64_t>(b.size())), true);
  cross_correlation(context, plan.get(), a, b, call.flag("normalize", false), call.out<float>("y"));
}

ScratchNeed prepare_window(KernelCall& call) {
  window_of(call);
  call.flag("periodic", false);
  call.make("y", DType::kF32, {size_of(call, "x")});
  return {};
}
void run_window(Context& context, KernelCall& call) {
  window_apply(context, call.in<float>("x"), window_of(call), call.flag("periodic", false), call.out<float>("y"));
}

// N = 1M at both scales, as the specification has it.
int64_t capped(int64_t size) { return std::min<int64_t>(size, 1000000); }
template <int kTaps>
void example_filter(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {capped(size)}, seed);
  add_uniform(call, "h", {kTaps}, seed + 1);
}
void example_conv1d(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {capped(size)}, seed);
  add_uniform(call, "w", {32}, seed + 1);
}
void example_signal(KernelCall& call, int64_t size, uint64_t seed) { add_uniform(call, "x", {capped(size)}, seed); }
void example_cross(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t n = std::min<int64_t>(size, 10000);
  add_uniform(call, "a", {n}, seed);
  add_uniform(call, "b", {n}, seed + 1);
}

double log2_of(double n) { return std::log2(std::max(n, 2.0)); }
template <int kTapsName>  // 'w' or 'h'
double flops_of_filter(const KernelCall& call) {
  const char name[] = {kTapsName, '\0'};
  return 2 * length_of(call, "x") * length_of(call, name);
}
double flops_of_overlap(const KernelCall& call) {
  return std::min(2 * length_of(call, "h"), 10 * log2_of(length_of(call, "h"))) * length_of(call, "x");
}
double flops_of_autocorrelation(const KernelCall& call) {
  const double n = length_of(call, "x");
  return std::min(n * n, 20 * n * log2_of(n));
}
double bytes_of_cross(const KernelCall& call) { return 8 * (length_of(call, "a") + length_of(call, "b")); }
double flops_of_cross(const KernelCall& call) {
  const double n = length_of(call, "a"), m = length_of(call, "b");
  return std::min(2 * n * m, 15 * (n + m) * log2_of(n + m));
}

}  // namespace

std::span<const KernelInfo> signal_kernels() {
  static constexpr std::string_view kDomain = "signal";
  static constexpr KernelInfo kRows[] = {
      {"conv1d", kDomain, "y[N] = sum of w[K] x[i - K/2 + k], padded", bytes_of_x<8>, flops_of_filter<'w'>,
       prepare_conv1d, run_conv1d, example_conv1d},
      {"fft_conv1d", kDomain, "y[N+K-1] or [N] = sum of h[K] x[n - k]", bytes_of_x<8>, flops_of_overlap,
       prepare_fft_conv1d, run_filter<fft_conv1d>, example_filter<256>},
      {"autocorrelation", kDomain, "y[N] = sum of x[i] x[i + k]", bytes_of_x<8>, flops_of_autocorrelation,
       prepare_autocorrelation, run_autocorrelation, example_signal},
      {"cross_correlation", kDomain, "y[N+M-1] = sum of a[t + k] b[t]", bytes_of_cross, flops_of_cross, prepare_cross,
       run_cross, example_cross},
      {"window_apply", kDomain, "y[N] = x w, a window", bytes_of_x<8>, flops_of_x<1, 3>, prepare_window, run_window,
       example_signal, "y=x"},
      {"fir_filter", kDomain, "y[N] = sum of h[K] x[n - k], causal", bytes_of_x<8>, flops_of_filter<'h'>, prepare_fir,
       run_filter<fir_filter>, example_filter<32>},
  };
  return kRows;
}

}  // namespace graft
