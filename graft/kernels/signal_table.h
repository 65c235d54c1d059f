#pragma once

#include <cstdint>

namespace graft {

constexpr int64_t kWindowBlock = 16;  // samples whose angles differ by fixed offsets

// w(n) = c0 + v (c1 + v c2), v = sin(pi n / D)^2.
struct WindowShape {
  float c0, c1, c2;
  uint64_t step;                  // 2^64 / D: turns of the whole angle a sample
  uint32_t offset[kWindowBlock];  // (i step) / 2^32
};

// What signal.cc runs on a range, on one thread.
struct SignalTable {
  // y[i] = sum_k w[k] x[i + k], i < n: reads n + taps - 1 samples.
  void (*correlate)(const float* x, const float* w, int64_t taps, float* y, int64_t n) noexcept;
  // Samples first ... of the signal, `first` a multiple of kWindowBlock. `past`: y leaves the cache, so store past it.
  void (*window)(const WindowShape& w, int64_t first, const float* x, float* y, int64_t n, bool past) noexcept;
  void (*join)(const float* a, const float* b, float* z, int64_t n) noexcept;  // z = a + i b
  void (*split)(const float* z, float* a, float* b, int64_t n) noexcept;       // and back
  void (*subtract)(const float* x, float y, float* z, int64_t n) noexcept;     // z = x - y
  void (*divide)(const float* x, float y, float* z, int64_t n) noexcept;       // z = x / y
};
const SignalTable& signal_ref() noexcept;
const SignalTable& signal_fma_ref() noexcept;
const SignalTable* signal_simd() noexcept;  // null: run the reference

}  // namespace graft
