#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

struct FftTables;

// What a transform of one length needs beside its data: twiddles, from sines in f64, rounded once. Built outside the run (microseconds to
// milliseconds; allocates), then constant: any number of calls and threads may share it. 1 <= n <= 2^26, else Error. `real`: with the
// twiddles of fft_real and ifft_real of 2 n samples.
class FftPlan {
 public:
  explicit FftPlan(int64_t n, bool real = false);
  ~FftPlan();
  FftPlan(FftPlan&&) noexcept;
  FftPlan& operator=(FftPlan&&) noexcept;
  int64_t size() const noexcept;
  const FftTables& tables() const noexcept { return *tables_; }

 private:
  std::unique_ptr<FftTables> tables_;
};
// The plan of a length from a small cache that the whole process shares; the least recently used of 16 goes first.
std::shared_ptr<const FftPlan> cached_fft_plan(int64_t n, bool real = false);

// Discrete Fourier transforms of N = plan.size() complex numbers, interleaved (re, im): x, y of 2 N floats. y may be x; otherwise they do not
// overlap.
//   fft_radix2, fft_radix4, fft:  y[k] = sum_n x[n] e^(-2 pi i n k / N);  ifft: the same with e^(+2 pi i ...), times 1 / N
// Lengths: fft_radix2 powers of two, fft_radix4 powers of four (one transform serves both), fft and ifft any; nothing is padded silently.
// Powers of two from 256 on: N = N1 N2, columns of N1 then rows of N2 with lanes over 16 of them (four-step, Bailey 1990), inside Stockham
// passes of radix 8 and 4. Other lengths: Bluestein's convolution with a chirp in a power of two from 2 N - 1 on.
// Error a 4e-6 of the root mean square of y. The same operations in the same order on every variant and thread count: the same bits.
// Scratch: fft_scratch(plan). Source: spec/kernels.md, section 18.
ScratchNeed fft_scratch(const FftPlan& plan) noexcept;
void fft(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept;
void fft_radix2(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept;
void fft_radix4(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept;
void ifft(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept;

// Bins 0 ... N/2 of the transform of a real x of N = 2 plan.size() samples, through one complex transform of half the length; the
// imaginary parts of bins 0 and N/2 are 0. y: N + 2 floats; it may begin where x does. `half` is a plan of N / 2 made with `real`.
void fft_real(Context& context, const FftPlan& half, std::span<const float> x, std::span<float> y) noexcept;
// The inverse: x of N samples from bins 0 ... N/2 (imaginary parts of the first and last are not read). y is overwritten; x may begin
// where it does.
void ifft_real(Context& context, const FftPlan& half, std::span<float> y, std::span<float> x) noexcept;

// y[m] = factor (re^2 + im^2) of x: 2 M floats; one_sided: twice that but for the first and the last bin (0 and N/2). With factor 1 / (fs sum
// w^2) a power spectral density. r 4e-7. y does not overlap x.
void spectral_power(Context& context, std::span<const float> x, double factor, bool one_sided,
                    std::span<float> y) noexcept;

}  // namespace graft
