#include <algorithm>
#include <list>
#include <mutex>

#include "graft/base/error.h"
#include "graft/kernels/fft_table.h"
#include "graft/kernels/math.h"

namespace graft {
namespace {

constexpr double kTau = 6.283185307179586;

bool power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

// e^(-2 pi i j / n), 0 <= j < n, from the nearest quarter, so that the axes are exact.
void root(int64_t j, int64_t n, float* to) {
  const int64_t quarter = (8 * j + n) / (2 * n);  // round(4 j / n)
  double s, c;
  sincos_f64(kTau / 4 * (static_cast<double>(4 * j - quarter * n) / static_cast<double>(n)), &s, &c);
  const double re[] = {c, -s, -c, s}, im[] = {-s, -c, s, c};
  to[0] = static_cast<float>(re[quarter % 4]);
  to[1] = static_cast<float>(im[quarter % 4]);
}

FftPasses make_passes(int64_t n) {
  FftPasses f;
  f.n = n;
  size_t floats = 0;
  int64_t stride = 1;
  for (int64_t left = n; left > 1;) {
    // Radix 8 while it leaves a multiple of 4 or nothing: a pass of radix 2 is the whole transform of 2.
    const int radix = left == 2 ? 2 : left == 4 || left == 16 ? 4 : 8;
    left /= radix;
    f.passes[f.count++] = {radix, left, stride, nullptr};
    floats += static_cast<size_t>(left > 1 ? left * 2 * (radix - 1) : 0);
    stride *= radix;
  }
  f.storage = Buffer(floats * sizeof(float));
  float* to = f.storage.as<float>().data();
  for (int i = 0; i < f.count; ++i) {
    FftPasses::Pass& p = f.passes[i];
    p.twiddles = to;
    for (int64_t k = 0; p.m > 1 && k < p.m; ++k) {
      for (int64_t j = 1; j < p.radix; ++j, to += 2) root(k * j, p.m * p.radix, to);
    }
  }
  return f;
}

void make_lanes(FftTables& t) {
  int bits = 0;
  while ((int64_t{1} << bits) < t.n) ++bits;
  t.n1 = int64_t{1} << bits / 2;
  t.n2 = t.n / t.n1;
  t.first = make_passes(t.n1);
  t.second = make_passes(t.n2);
  t.block = Buffer(static_cast<size_t>(t.n2 / kFftLanes * t.n1 * 2) * sizeof(float));
  t.lane = Buffer(static_cast<size_t>(t.n1 * 2 * kFftLanes) * sizeof(float));
  float* to = t.block.as<float>().data();
  for (int64_t c = 0; c < t.n2; c += kFftLanes) {
    for (int64_t k = 0; k < t.n1; ++k, to += 2) root(c * k, t.n, to);
  }
  for (int64_t k = 0; k < t.n1; ++k) {
    for (int64_t c = 0; c < kFftLanes; ++c) {
      float w[2];
      root(c * k, t.n, w);
      float* row = t.lane.as<float>().data() + k * 2 * kFftLanes;
      row[c] = w[0];
      row[kFftLanes + c] = w[1];
    }
  }
}

void make_chirp(FftTables& t) {
  int64_t m = 1;
  while (m < 2 * t.n - 1) m *= 2;
  t.inner = std::make_unique<FftPlan>(m);
  t.chirp = Buffer(static_cast<size_t>(2 * t.n) * sizeof(float));
  t.spectrum = Buffer(static_cast<size_t>(2 * m) * sizeof(float));
  float *chirp = t.chirp.as<float>().data(), *b = t.spectrum.as<float>().data();
  for (int64_t k = 0; k < t.n; ++k) {
    root(k * k % (2 * t.n), 2 * t.n, chirp + 2 * k);
    for (const int64_t at : {k, (m - k) % m}) {
      b[2 * at] = chirp[2 * k] / static_cast<float>(m);  // m is a power of two: exact
      b[2 * at + 1] = -chirp[2 * k + 1] / static_cast<float>(m);
    }
  }
  const Buffer scratch(fft_serial_scratch(*t.inner));
  fft_serial(*t.inner, b, b, false, 1, scratch.data());
}

}  // namespace

FftPlan::FftPlan(int64_t n, bool real) : tables_(std::make_unique<FftTables>()) {
  GRAFT_CHECK(n >= 1 && n <= int64_t{1} << 26, "a Fourier transform of length {}, expected 1 to 2^26", n);
  FftTables& t = *tables_;
  t.n = n;
  if (!power_of_two(n)) {
    make_chirp(t);
  } else if (n < kFftDirect) {
    t.first = make_passes(n);
  } else {
    make_lanes(t);
  }
  if (!real) return;
  t.real = Buffer(static_cast<size_t>(2 * (n / 2 + 1)) * sizeof(float));
  float* w = t.real.as<float>().data();
  for (int64_t k = 0; k <= n / 2; ++k, w += 2) {
    float r[2];
    root(k, 2 * n, r);
    w[0] = 0.5f * r[1];
    w[1] = -0.5f * r[0];
  }
}
FftPlan::~FftPlan() = default;
FftPlan::FftPlan(FftPlan&&) noexcept = default;
FftPlan& FftPlan::operator=(FftPlan&&) noexcept = default;
int64_t FftPlan::size() const noexcept { return tables_->n; }

std::shared_ptr<const FftPlan> cached_fft_plan(int64_t n, bool real) {
  static std::mutex mutex;
  static std::list<std::shared_ptr<const FftPlan>> plans;  // the last used first
  const std::lock_guard lock(mutex);
  const auto at = std::find_if(plans.begin(), plans.end(), [&](const auto& plan) {
    return plan->size() == n && (!real || plan->tables().real.bytes() > 0);
  });
  if (at != plans.end()) {
    plans.splice(plans.begin(), plans, at);
    return plans.front();
  }
  plans.push_front(std::make_shared<const FftPlan>(n, real));
  if (plans.size() > 16) plans.pop_back();
  return plans.front();
}

}  // namespace graft
