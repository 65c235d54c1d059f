#include "graft/kernels/signal.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "graft/kernels/fft_table.h"
#include "graft/kernels/reduce.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/signal_table.h"

namespace graft {
namespace {

constexpr int64_t kDirectTaps = 128;         // from more taps on blocks of transforms are faster
constexpr int64_t kDirectCorrelation = 512;  // samples up to which a whole correlation is summed directly
constexpr int64_t kTask = 8192;              // outputs of a direct task

const SignalTable& table() noexcept {
  if (const SignalTable* simd = signal_simd()) return *simd;
  return pick_reference(signal_ref(), signal_fma_ref());
}

// Pieces of a scratch block, each 64-byte aligned.
int64_t padded(int64_t floats) noexcept { return (floats + 15) / 16 * 16; }
size_t bytes_of(int64_t floats) noexcept { return sizeof(float) * static_cast<size_t>(floats); }

int64_t length(std::span<const float> x) noexcept { return static_cast<int64_t>(x.size()); }

// x with its padding, samples begin ... begin + count.
void fetch(std::span<const float> x, Padding padding, int64_t begin, int64_t count, float* to) noexcept {
  const int64_t n = length(x);
  const auto outside = [&](int64_t i) {
    if (padding == Padding::kZero || n == 0) return 0.0f;
    if (padding == Padding::kCircular) return x[static_cast<size_t>(((i % n) + n) % n)];
    return x[static_cast<size_t>(i < 0 ? -i : 2 * (n - 1) - i)];
  };
  int64_t i = begin;
  const int64_t end = begin + count;
  for (; i < std::min<int64_t>(end, 0); ++i) to[i - begin] = outside(i);
  if (const int64_t last = std::min(end, n); i < last) {
    std::copy(x.begin() + i, x.begin() + last, to + (i - begin));
    i = last;
  }
  for (; i < end; ++i) to[i - begin] = outside(i);
}

// y[i] = sum_k w[k] x[i + shift + k], x padded. `w` lies in memory that stays; `taps` may be the context's shared block.
void filter_direct(Context& context, std::span<const float> x, std::span<const float> w, int64_t shift, Padding padding,
                   std::span<float> y) noexcept {
  const SignalTable& t = table();
  const int64_t n = length(y), taps = length(w);
  const auto range = [&](int64_t begin, int64_t count, int worker) {
    const int64_t from = begin + shift, needs = count + taps - 1;
    const float* at = x.data() + from;
    if (from < 0 || from + needs > length(x)) {
      fetch(x, padding, from, needs, context.worker<float>(worker));
      at = context.worker<float>(worker);
    }
    t.correlate(at, w.data(), taps, y.data() + begin, count);
  };
  // Both ends read past x: their tasks are short, so that little is copied.
  const int64_t edge = std::min(kTask, (taps + 63) / 64 * 64);
  const auto task_range = [&](int64_t begin, int64_t end, int worker) {
    if (begin + shift < 0 && end - begin > edge) {
      range(begin, edge, worker);
      begin += edge;
    }
    if (end - begin > edge && end + shift + taps - 1 > length(x)) {
      range(end - edge, edge, worker);
      end -= edge;
    }
    range(begin, end - begin, worker);
  };
  if (n <= kTask) {
    if (n > 0) task_range(0, n, 0);
    return;
  }
  context.pool().parallel((n + kTask - 1) / kTask, [&](int64_t task, int worker) {
    task_range(task * kTask, std::min(n, (task + 1) * kTask), worker);
  });
}

// The same by overlap-save: a transform of M samples gives M - K + 1 outputs, and two segments go through one transform as its real and imaginary
// parts, since the taps are real. Shared: spectrum 2 M; worker: z 2 M, segments 2 M, transform.
void filter_blocks(Context& context, const FftPlan& plan, std::span<const float> x, std::span<const float> w,
                   int64_t shift, Padding padding, std::span<float> y) noexcept {
  const SignalTable& t = table();
  const FftTable& transforms = fft_table();
  const int64_t m = plan.size(), taps = length(w), n = length(y), step = m - taps + 1;
  float* spectrum = context.shared<float>() + padded(taps);
  std::fill_n(spectrum, 2 * m, 0.0f);
  // Output i of a segment stands at K - 1 + i of the circular convolution with the reversed taps. 1 / M is exact.
  for (int64_t k = 0; k < taps; ++k) {
    spectrum[2 * (taps - 1 - k)] = w[static_cast<size_t>(k)] / static_cast<float>(m);
  }
  fft_serial(plan, spectrum, spectrum, false, 1, context.worker<float>(0) + 4 * m);
  const int64_t segments = (n + step - 1) / step;
  context.pool().parallel((segments + 1) / 2, [&](int64_t pair, int worker) {
    float* z = context.worker<float>(worker);
    float *a = z + 2 * m, *b = a + m, *scratch = b + m;
    const float* source[2] = {a, b};
    for (const int64_t half : {0, 1}) {
      const int64_t from = (2 * pair + half) * step + shift;
      if (from >= 0 && from + m <= length(x)) {
        source[half] = x.data() + from;
      } else {
        fetch(x, padding, from, std::min(m, n + taps - 1 + shift - from), half == 0 ? a : b);
        for (int64_t i = std::max<int64_t>(0, n + taps - 1 + shift - from); i < m; ++i) (half == 0 ? a : b)[i] = 0;
      }
    }
    t.join(source[0], source[1], z, m);
    fft_serial(plan, z, z, false, 1, scratch);
    transforms.multiply(z, spectrum, z, m, false);
    fft_serial(plan, z, z, true, 1, scratch);
    t.split(z + 2 * (taps - 1), a, b, step);
    for (const int64_t half : {0, 1}) {
      const int64_t begin = (2 * pair + half) * step;
      if (begin < n) std::copy_n(half == 0 ? a : b, std::min(step, n - begin), y.data() + begin);
    }
  });
}

void filter(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> w, int64_t shift,
            Padding padding, std::span<float> y) noexcept {
  assert(w.empty() || (plan == nullptr ? 0 : plan->size()) == filter_fft_length(length(y), length(w)));
  if (plan == nullptr) {
    filter_direct(context, x, w, shift, padding, y);
  } else {
    filter_blocks(context, *plan, x, w, shift, padding, y);
  }
}

void convolve(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> h,
              std::span<float> y) noexcept {
  float* reversed = context.shared<float>();
  std::reverse_copy(h.begin(), h.end(), reversed);
  filter(context, plan, x, std::span<const float>(reversed, h.size()), 1 - length(h), Padding::kZero, y);
}

int64_t power_from(int64_t n) noexcept {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

// x less `mean` into `to`, zeros up to `size`.
void copy_centred(Context& context, std::span<const float> x, float mean, float* to, int64_t size) noexcept {
  const SignalTable& t = table();
  const int64_t n = length(x);
  for_row_ranges(context, size, 1, [&](int64_t begin, int64_t end) {
    const int64_t last = std::clamp(n, begin, end);
    if (begin < last) t.subtract(x.data() + begin, mean, to + begin, last - begin);
    std::fill(to + last, to + end, 0.0f);
  });
}
// y = x / by over the threads.
void copy_divided(Context& context, const float* x, float by, std::span<float> y) noexcept {
  const SignalTable& t = table();
  for_row_ranges(context, length(y), 1,
                 [&](int64_t begin, int64_t end) { t.divide(x + begin, by, y.data() + begin, end - begin); });
}

}  // namespace

int64_t filter_fft_length(int64_t n, int64_t taps) noexcept {
  if (taps <= kDirectTaps || n <= kDirectTaps) return 0;
  // The cheapest power of two: transforms of p levels and about four passes of other work for each segment.
  int64_t best = 0, cost = 0;
  for (int64_t p = 8; p <= 26; ++p) {
    const int64_t m = int64_t{1} << p;
    if (m < 2 * taps) continue;
    const int64_t step = m - taps + 1, now = (n + step - 1) / step * (p + 4);
    if (best != 0 && now > cost >> (p - 8)) {
      if (now > 2 * (cost >> (p - 8))) break;
      continue;
    }
    best = m;
    cost = now << (p - 8);
  }
  return best;
}
ScratchNeed filter_scratch(int64_t n, int64_t taps, const FftPlan* plan) noexcept {
  if (plan == nullptr) {
    return {.shared = bytes_of(padded(taps)), .per_worker = bytes_of(std::min(n, kTask) + taps)};
  }
  const int64_t m = plan->size();
  return {.shared = bytes_of(padded(taps) + 2 * m), .per_worker = bytes_of(4 * m) + fft_serial_scratch(*plan)};
}

void conv1d(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> w, Padding padding,
            std::span<float> y) noexcept {
  assert(x.size() == y.size() && !w.empty());
  filter(context, plan, x, w, -(length(w) / 2), padding, y);
}
void fir_filter(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> h,
                std::span<float> y) noexcept {
  assert(x.size() == y.size() && !h.empty());
  convolve(context, plan, x, h, y);
}
void fft_conv1d(Context& context, const FftPlan* plan, std::span<const float> x, std::span<const float> h,
                std::span<float> y) noexcept {
  assert(!h.empty() && y.size() < x.size() + h.size());
  convolve(context, plan, x, h, y);
}

int64_t autocorrelation_fft_length(int64_t n) noexcept {
  return n <= kDirectCorrelation ? 0 : power_from(2 * n - 1) / 2;
}
ScratchNeed autocorrelation_scratch(int64_t n, const FftPlan* plan) noexcept {
  ScratchNeed need = reduce_scratch(n);
  if (plan == nullptr) {
    need.merge({.shared = bytes_of(2 * n)});
  } else {
    ScratchNeed transform = fft_scratch(*plan);
    transform.shared += bytes_of(padded(2 * plan->size() + 2));
    need.merge(transform);
  }
  return need;
}
void autocorrelation(Context& context, const FftPlan* plan, std::span<const float> x, bool demean, bool normalize,
                     std::span<float> y) noexcept {
  assert(x.size() == y.size());
  const int64_t n = length(x);
  if (n == 0) return;
  const float mean = demean ? reduce_mean(context, x) : 0.0f;
  float* z = context.shared<float>();
  if (plan == nullptr) {
    copy_centred(context, x, mean, z, 2 * n);
    table().correlate(z, z, n, y.data(), n);
    if (normalize) copy_divided(context, y.data(), y[0], y);
    return;
  }
  assert(plan->size() == autocorrelation_fft_length(n));
  const int64_t size = 2 * plan->size();
  copy_centred(context, x, mean, z, size);
  autocorrelate_in(context, *plan, z, z + padded(size + 2));
  copy_divided(context, z, normalize ? z[0] : 1.0f, y);
}

int64_t cross_correlation_fft_length(int64_t n, int64_t m) noexcept {
  return n + m <= kDirectCorrelation || m <= kDirectTaps ? 0 : power_from(n + m - 1) / 2;
}
ScratchNeed cross_correlation_scratch(int64_t n, int64_t m, const FftPlan* plan) noexcept {
  ScratchNeed need = reduce_scratch(std::max(n, m));
  ScratchNeed work;
  if (plan == nullptr) {
    work = filter_scratch(n + m - 1, m, nullptr);
    work.shared = bytes_of(padded(n) + padded(m));
  } else {
    work = fft_scratch(*plan);
    work.shared += bytes_of(2 * padded(2 * plan->size() + 2));
  }
  need.merge(work);
  return need;
}
void cross_correlation(Context& context, const FftPlan* plan, std::span<const float> a, std::span<const float> b,
                       bool normalize, std::span<float> y) noexcept {
  const int64_t n = length(a), m = length(b);
  assert(n > 0 && m > 0 && length(y) == n + m - 1);
  float mean_a = 0, mean_b = 0, norm = 1;
  if (normalize) {
    mean_a = reduce_mean(context, a);
    mean_b = reduce_mean(context, b);
    norm = static_cast<float>(std::sqrt(static_cast<double>(reduce_var(context, a, 0)) * static_cast<double>(n) *
                                        static_cast<double>(reduce_var(context, b, 0)) * static_cast<double>(m)));
  }
  float* first = context.shared<float>();
  if (plan == nullptr) {
    float* second = first + padded(n);
    copy_centred(context, a, mean_a, first, n);
    copy_centred(context, b, mean_b, second, m);
    filter_direct(context, std::span<const float>(first, a.size()), std::span<const float>(second, b.size()), 1 - m,
                  Padding::kZero, y);
    if (normalize) copy_divided(context, y.data(), norm, y);
    return;
  }
  assert(plan->size() == cross_correlation_fft_length(n, m));
  const int64_t size = 2 * plan->size();
  float *second = first + padded(size + 2), *shared = second + padded(size + 2);
  copy_centred(context, a, mean_a, first, size);
  copy_centred(context, b, mean_b, second, size);
  fft_real_in(context, *plan, first, first, shared);
  fft_real_in(context, *plan, second, second, shared);
  for_row_ranges(context, size / 2 + 1, 4, [&](int64_t begin, int64_t end) {
    fft_table().multiply(first + 2 * begin, second + 2 * begin, first + 2 * begin, end - begin, true);
  });
  ifft_real_in(context, *plan, first, shared);
  // Lag k stands at k, or at the end where it is negative.
  copy_divided(context, first + size - (m - 1), norm, y.first(static_cast<size_t>(m - 1)));
  copy_divided(context, first, norm, y.subspan(static_cast<size_t>(m - 1)));
}

void window_apply(Context& context, std::span<const float> x, Window window, bool periodic,
                  std::span<float> y) noexcept {
  assert(x.size() == y.size());
  const int64_t n = length(x);
  // With v = sin^2(a / 2): cos a = 1 - 2 v and cos 2 a = 1 - 8 v + 8 v^2.
  WindowShape shape = {1, 0, 0, 0, {}};
  if (n > 1) {
    switch (window) {
      case Window::kRect: break;
      case Window::kHann: shape = {0, 1, 0, 0, {}}; break;
      case Window::kHamming: shape = {0.08f, 0.92f, 0, 0, {}}; break;
      case Window::kBlackman: shape = {0, 0.36f, 0.64f, 0, {}}; break;
    }
    shape.step = UINT64_MAX / static_cast<uint64_t>(periodic ? n : n - 1);
  }
  for (int64_t i = 0; i < kWindowBlock; ++i) {
    shape.offset[i] = static_cast<uint32_t>((static_cast<uint64_t>(i) * shape.step) >> 32);
  }
  const bool past = n >= int64_t{4} << 20;
  const SignalTable& t = table();
  const auto range = [&](int64_t begin, int64_t end) {
    t.window(shape, begin, x.data() + begin, y.data() + begin, end - begin, past);
  };
  if (n <= kTaskElements) {
    range(0, n);
  } else {
    for_row_ranges(context, n, 1, range);
  }
}

}  // namespace graft
