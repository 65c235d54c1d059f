#include "graft/kernels/fft.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/fft_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {

const FftTable& fft_table() noexcept {
  if (const FftTable* simd = fft_simd()) return *simd;
  return pick_reference(fft_ref(), fft_fma_ref());
}

namespace {

constexpr int64_t kParallel = 4096;  // below, a transform is a few microseconds

bool lanes(const FftTables& t) noexcept { return t.inner == nullptr && t.n >= kFftDirect; }

// Floats that a transform takes, and that each of its threads takes.
int64_t shared_floats(const FftTables& t) noexcept {
  if (t.inner != nullptr) return 2 * t.inner->size() + shared_floats(t.inner->tables());
  return lanes(t) ? 2 * t.n : 4 * t.n;
}
int64_t worker_floats(const FftTables& t) noexcept {
  if (t.inner != nullptr) return worker_floats(t.inner->tables());
  return lanes(t) ? 4 * kFftLanes * std::max(t.n1, t.n2) : 0;
}

// blocks(n, f) calls f(block, scratch) for n blocks, ranges(n, f) f(begin, end) over n elements: here or over the threads.
template <class Blocks, class Ranges>
void transform(const FftTables& t, const float* x, float* y, bool inverse, float scale, float* shared,
               const Blocks& blocks, const Ranges& ranges) noexcept {
  const FftTable& table = fft_table();
  if (t.inner != nullptr) {
    const int64_t m = t.inner->size();
    float* a = shared;
    const float *chirp = t.chirp.as<float>().data(), *spectrum = t.spectrum.as<float>().data();
    ranges(t.n, [&](int64_t begin, int64_t end) {
      table.multiply(x + 2 * begin, chirp + 2 * begin, a + 2 * begin, end - begin, inverse);
    });
    ranges(2 * (m - t.n), [&](int64_t begin, int64_t end) { std::fill(a + 2 * t.n + begin, a + 2 * t.n + end, 0.0f); });
    transform(t.inner->tables(), a, a, false, 1, a + 2 * m, blocks, ranges);
    ranges(m, [&](int64_t begin, int64_t end) {
      table.multiply(a + 2 * begin, spectrum + 2 * begin, a + 2 * begin, end - begin, inverse);
    });
    transform(t.inner->tables(), a, a, true, inverse ? scale : 1, a + 2 * m, blocks, ranges);
    ranges(t.n, [&](int64_t begin, int64_t end) {
      table.multiply(a + 2 * begin, chirp + 2 * begin, y + 2 * begin, end - begin, inverse);
    });
  } else if (lanes(t)) {
    blocks(t.n2 / kFftLanes, [&](int64_t b, float* scratch) { table.columns(t, b, x, shared, scratch, inverse); });
    blocks(t.n1 / kFftLanes, [&](int64_t b, float* scratch) { table.rows(t, b, shared, y, scratch, inverse, scale); });
  } else if (t.n == 1) {
    const float factor = inverse ? scale : 1;
    y[0] = x[0] * factor;
    y[1] = x[1] * factor;
  } else {
    table.direct(t.first, x, y, shared, inverse, scale);
  }
}

void transform_here(const FftTables& t, const float* x, float* y, bool inverse, float scale, float* shared,
                    float* worker) noexcept {
  transform(
      t, x, y, inverse, scale, shared,
      [&](int64_t n, const auto& f) {
        for (int64_t b = 0; b < n; ++b) f(b, worker);
      },
      [](int64_t n, const auto& f) { f(int64_t{0}, n); });
}

float over_size(const FftPlan& plan) noexcept { return static_cast<float>(1.0 / static_cast<double>(plan.size())); }

}  // namespace

size_t fft_serial_scratch(const FftPlan& plan) noexcept {
  const FftTables& t = plan.tables();
  return sizeof(float) * static_cast<size_t>(shared_floats(t) + worker_floats(t) + 16);
}
void fft_serial(const FftPlan& plan, const float* x, float* y, bool inverse, float scale, void* scratch) noexcept {
  const FftTables& t = plan.tables();
  auto* shared = static_cast<float*>(scratch);
  transform_here(t, x, y, inverse, scale, shared, shared + (shared_floats(t) + 15) / 16 * 16);
}

void fft_in(Context& context, const FftPlan& plan, const float* x, float* y, bool inverse, float scale,
            void* shared) noexcept {
  const FftTables& t = plan.tables();
  auto* floats = static_cast<float*>(shared);
  if (t.n < kParallel || context.num_threads() == 1) {
    return transform_here(t, x, y, inverse, scale, floats, context.worker<float>(0));
  }
  transform(
      t, x, y, inverse, scale, floats,
      [&](int64_t n, const auto& f) {
        context.pool().parallel(n, [&](int64_t b, int worker) { f(b, context.worker<float>(worker)); });
      },
      [&](int64_t n, const auto& f) { for_row_ranges(context, n, 2, f); });
}

ScratchNeed fft_scratch(const FftPlan& plan) noexcept {
  const FftTables& t = plan.tables();
  return {.shared = sizeof(float) * static_cast<size_t>(shared_floats(t)),
          .per_worker = sizeof(float) * static_cast<size_t>(worker_floats(t))};
}

void fft(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept {
  assert(static_cast<int64_t>(x.size()) == 2 * plan.size() && x.size() == y.size());
  fft_in(context, plan, x.data(), y.data(), false, 1, context.shared<float>());
}
void fft_radix2(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept {
  fft(context, plan, x, y);
}
void fft_radix4(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept {
  fft(context, plan, x, y);
}
void ifft(Context& context, const FftPlan& plan, std::span<const float> x, std::span<float> y) noexcept {
  assert(static_cast<int64_t>(x.size()) == 2 * plan.size() && x.size() == y.size());
  fft_in(context, plan, x.data(), y.data(), true, over_size(plan), context.shared<float>());
}

// f(table, begin, end) over the pairs of bins 1 ... n / 2.
template <class F>
void for_pairs(Context& context, int64_t n, const F& f) noexcept {
  for_row_ranges(context, n / 2, 4, [&](int64_t begin, int64_t end) { f(fft_table(), begin + 1, end + 1); });
}

void fft_real_in(Context& context, const FftPlan& half, const float* x, float* y, void* shared) noexcept {
  const FftTables& t = half.tables();
  fft_in(context, half, x, y, false, 1, shared);
  const float re = y[0], im = y[1];
  y[0] = re + im;
  y[2 * t.n] = re - im;
  y[1] = y[2 * t.n + 1] = 0;
  for_pairs(context, t.n, [&](const FftTable& table, int64_t begin, int64_t end) {
    table.real_pairs(t.real.as<float>().data(), y, t.n, begin, end, false);
  });
}
void ifft_real_in(Context& context, const FftPlan& half, float* y, void* shared) noexcept {
  const FftTables& t = half.tables();
  const float first = y[0], last = y[2 * t.n];
  y[0] = 0.5f * (first + last);
  y[1] = 0.5f * (first - last);
  for_pairs(context, t.n, [&](const FftTable& table, int64_t begin, int64_t end) {
    table.real_pairs(t.real.as<float>().data(), y, t.n, begin, end, true);
  });
  fft_in(context, half, y, y, true, over_size(half), shared);
}
void autocorrelate_in(Context& context, const FftPlan& half, float* y, void* shared) noexcept {
  const FftTables& t = half.tables();
  fft_in(context, half, y, y, false, 1, shared);
  const float first = (y[0] + y[1]) * (y[0] + y[1]), last = (y[0] - y[1]) * (y[0] - y[1]);
  y[0] = 0.5f * (first + last);
  y[1] = 0.5f * (first - last);
  for_pairs(context, t.n, [&](const FftTable& table, int64_t begin, int64_t end) {
    table.power_pairs(t.real.as<float>().data(), y, t.n, begin, end);
  });
  fft_in(context, half, y, y, true, over_size(half), shared);
}

void fft_real(Context& context, const FftPlan& half, std::span<const float> x, std::span<float> y) noexcept {
  assert(static_cast<int64_t>(x.size()) == 2 * half.size() && y.size() == x.size() + 2);
  assert(half.tables().real.bytes() > 0);
  fft_real_in(context, half, x.data(), y.data(), context.shared<float>());
}

void ifft_real(Context& context, const FftPlan& half, std::span<float> y, std::span<float> x) noexcept {
  assert(static_cast<int64_t>(x.size()) == 2 * half.size() && y.size() == x.size() + 2);
  assert(half.tables().real.bytes() > 0);
  ifft_real_in(context, half, y.data(), context.shared<float>());
  if (x.data() == y.data()) return;
  for_row_ranges(context, half.size(), 2, [&](int64_t begin, int64_t end) {
    std::copy(y.begin() + 2 * begin, y.begin() + 2 * end, x.begin() + 2 * begin);
  });
}

void spectral_power(Context& context, std::span<const float> x, double factor, bool one_sided,
                    std::span<float> y) noexcept {
  assert(x.size() == 2 * y.size());
  const FftTable& table = fft_table();
  const auto n = static_cast<int64_t>(y.size());
  const bool past = n >= int64_t{4} << 20;
  const auto scale = static_cast<float>(one_sided ? 2 * factor : factor);
  const auto range = [&](int64_t begin, int64_t end) {
    table.power(x.data() + 2 * begin, scale, y.data() + begin, end - begin, past);
  };
  if (n <= kTaskElements) {
    range(0, n);
  } else {
    for_row_ranges(context, n, 1, range);
  }
  if (!one_sided || n == 0) return;
  const auto once = static_cast<float>(factor);
  for (const int64_t edge : {int64_t{0}, n - 1}) table.power(x.data() + 2 * edge, once, y.data() + edge, 1, false);
}

}  // namespace graft
