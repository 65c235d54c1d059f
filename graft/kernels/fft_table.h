#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "graft/base/buffer.h"
#include "graft/kernels/fft.h"

namespace graft {

constexpr int64_t kFftLanes = 16;    // columns or rows that are transformed side by side
constexpr int64_t kFftDirect = 256;  // below this, one transform without lanes

// Stockham passes of one length, decimation in frequency. A pass of radix r at length l (m = l / r) and stride s = n / l takes
//   y[q + s (r p + j)] = W_l^(p j) sum_k x[q + s (p + m k)] W_r^(j k),  p < m, q < s
// Its twiddles: for every p the r - 1 complex W_l^(p j), j = 1 ... The last pass has p = 0 alone and needs none.
struct FftPasses {
  struct Pass {
    int radix;
    int64_t m, stride;
    const float* twiddles;
  };
  int64_t n = 1;
  int count = 0;
  Pass passes[16];
  Buffer storage;
};

struct FftTables {
  int64_t n = 1;
  int64_t n1 = 1, n2 = 1;   // powers of two from kFftDirect on: N = n1 n2, both multiples of kFftLanes
  FftPasses first, second;  // lengths n1 and n2; a short power of two has `first` alone
  // W_N^(c k), c column, k < n1, as a product: block[c / 16][k] (complex) times lane[k][re, im][c mod 16].
  Buffer block, lane;
  Buffer real;  // -i/2 W_2N^k, k <= N / 2: fft_real of 2 N samples
  // Any other length: chirp[k] = e^(-pi i k^2 / N), spectrum: the transform of its conjugate, wrapped, over the length of `inner`, divided by it.
  std::unique_ptr<FftPlan> inner;
  Buffer chirp, spectrum;
};

// What fft.cc runs. x, y interleaved. `inverse`: both parts change places on the way in and out, which turns the sign of the exponent.
struct FftTable {
  // A whole short transform, y times `scale`; scratch: 4 n floats.
  void (*direct)(const FftPasses& f, const float* x, float* y, float* scratch, bool inverse, float scale) noexcept;
  // Columns 16 b ... + 15 of x as [n1, n2], times their twiddles, into tmp [n1/16][n2][re, im][16]. Scratch: 64 n1 floats.
  void (*columns)(const FftTables& f, int64_t b, const float* x, float* tmp, float* scratch, bool inverse) noexcept;
  // Rows 16 b ... of tmp into y as [n2, n1], times `scale` where inverse. Scratch: 64 n2 floats.
  void (*rows)(const FftTables& f, int64_t b, const float* tmp, float* y, float* scratch, bool inverse,
               float scale) noexcept;
  // y = a b (conjugate: a conj b), complex.
  void (*multiply)(const float* a, const float* b, float* y, int64_t n, bool conjugate) noexcept;
  // Pairs k, n - k for k in [begin, end), 1 <= k <= n / 2, in place: half-length spectrum to that of the real signal, or back (inverse).
  void (*real_pairs)(const float* w, float* y, int64_t n, int64_t begin, int64_t end, bool inverse) noexcept;
  // The same there and back with every bin replaced by its square: what an autocorrelation needs.
  void (*power_pairs)(const float* w, float* y, int64_t n, int64_t begin, int64_t end) noexcept;
  void (*power)(const float* x, float factor, float* y, int64_t n, bool past) noexcept;
};
const FftTable& fft_ref() noexcept;
const FftTable& fft_fma_ref() noexcept;
const FftTable* fft_simd() noexcept;  // null: run the reference
const FftTable& fft_table() noexcept;

// A transform over the threads with the caller's memory in place of the context's shared block: fft_scratch(plan).shared bytes, 64-byte
// aligned. fft_real_in, ifft_real_in: in place, y of N + 2 floats (fft.h); power: y becomes the transform of |X|^2 back.
void fft_in(Context& context, const FftPlan& plan, const float* x, float* y, bool inverse, float scale,
            void* shared) noexcept;
void fft_real_in(Context& context, const FftPlan& half, const float* x, float* y, void* shared) noexcept;
void ifft_real_in(Context& context, const FftPlan& half, float* y, void* shared) noexcept;
void autocorrelate_in(Context& context, const FftPlan& half, float* y, void* shared) noexcept;

// One transform on this thread, with its own scratch (64-byte aligned): for kernels whose tasks transform.
size_t fft_serial_scratch(const FftPlan& plan) noexcept;  // bytes
void fft_serial(const FftPlan& plan, const float* x, float* y, bool inverse, float scale, void* scratch) noexcept;

}  // namespace graft
