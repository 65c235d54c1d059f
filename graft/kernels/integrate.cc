#include "graft/kernels/integrate.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "graft/kernels/integrate_table.h"
#include "graft/kernels/math.h"
#include "graft/kernels/prng_table.h"
#include "graft/kernels/reduce_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/sum_blocks_inl.h"

namespace graft {
namespace {

const IntegrateTable& table() noexcept {
  if (const IntegrateTable* simd = integrate_simd()) return *simd;
  return pick_reference(integrate_ref(), integrate_fma_ref());
}

// f(begin, end) over n systems of `size` values; few of them stay on this thread, without the pool.
template <typename F>
void for_systems(Context& context, int64_t n, int64_t size, F&& f) noexcept {
  if (n * size <= kTaskElements) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  for_row_ranges(context, n, size, f);
}

constexpr int64_t kSamples = 1024;  // that are drawn and evaluated before they leave L1

int64_t dimensions(Integrand f) noexcept {
  return f == Integrand::kArctan ? 1 : f == Integrand::kQuarterCircle ? 2 : 3;
}

}  // namespace

int64_t ode_size(OdeSystem system) noexcept {
  return system == OdeSystem::kLorenz ? 3 : system == OdeSystem::kOscillator ? 2 : 1;
}

ScratchNeed rk4_scratch() noexcept { return {.shared = 3 * sizeof(float) * static_cast<size_t>(kForcingSteps)}; }

void integrate_rk4(Context& context, OdeSystem system, double p, double t0, double dt, int64_t steps,
                   View<float, 2> y) noexcept {
  assert(y.extent(1) == ode_size(system) && y.contiguous());
  const IntegrateTable& t = table();
  const Rk4Constants c = {static_cast<float>(system == OdeSystem::kOscillator ? -p * p : p), static_cast<float>(dt),
                          static_cast<float>(dt / 2), static_cast<float>(dt / 6)};
  const int64_t size = ode_size(system);
  float* forcing = context.shared<float>();
  const bool forced = system == OdeSystem::kForced;
  if (!forced) std::fill_n(forcing, 3, 0.0f);
  for (int64_t done = 0; done < steps;) {
    const int64_t now = forced ? std::min(kForcingSteps, steps - done) : steps;
    for (int64_t s = 0; forced && s < now; ++s) {
      const double at = t0 + static_cast<double>(done + s) * dt;
      const double times[] = {at, at + dt / 2, at + dt};
      for (size_t k = 0; k < 3; ++k) {
        double sine, cosine;
        sincos_f64(times[k], &sine, &cosine);
        forcing[3 * s + static_cast<int64_t>(k)] = static_cast<float>(cosine);
      }
    }
    for_systems(context, y.extent(0), size, [&](int64_t begin, int64_t end) {
      t.rk4(system, c, forcing, now, y.data() + begin * size, end - begin);
    });
    done += now;
  }
}

void integrate_verlet(Context& context, double k, double dt, int64_t steps, std::span<float> pos, std::span<float> vel,
                      std::span<float> acc) noexcept {
  assert(pos.size() == vel.size() && pos.size() == acc.size());
  const IntegrateTable& t = table();
  for_systems(context, static_cast<int64_t>(pos.size()), 1, [&](int64_t begin, int64_t end) {
    t.verlet(static_cast<float>(k), static_cast<float>(dt), static_cast<float>(0.5 * dt * dt),
             static_cast<float>(0.5 * dt), steps, pos.data() + begin, vel.data() + begin, acc.data() + begin,
             end - begin);
  });
}

ScratchNeed monte_carlo_scratch(int64_t n) noexcept {
  return {.shared = 2 * sizeof(float) * static_cast<size_t>(num_sum_blocks(n)),
          .per_worker = sizeof(float) * static_cast<size_t>(3 * kSamples + kSumBlock)};
}

MonteCarlo monte_carlo_integrate(Context& context, Integrand f, int64_t n, uint64_t seed, uint64_t stream) noexcept {
  assert(n >= 1);
  const IntegrateTable& t = table();
  const PrngTable& scalar = pick_reference(prng_ref(), prng_fma_ref());
  const PrngTable& draws = prng_simd() != nullptr ? *prng_simd() : scalar;
  const ReduceTable& sums = reduce_simd() != nullptr ? *reduce_simd() : pick_reference(reduce_ref(), reduce_fma_ref());
  const int64_t d = dimensions(f);
  auto* block_sums = context.shared<float>();
  float* squares = block_sums + num_sum_blocks(n);
  const auto block = [&](int64_t b, int worker) {
    float *u = context.worker<float>(worker), *v = u + 3 * kSamples;
    const int64_t begin = b * kSumBlock, size = std::min(kSumBlock, n - begin);
    for (int64_t at = 0; at < size; at += kSamples) {
      const int64_t count = std::min(kSamples, size - at), words = (count * d + 3) / 4;
      const auto first = static_cast<uint64_t>((begin + at) * d / 4);  // kSamples are whole blocks of four words
      const int64_t quick = draws.uniform({seed, stream}, first, words, u, false);
      if (quick < words) {
        scalar.uniform({seed, stream}, first + static_cast<uint64_t>(quick), words - quick, u + 4 * quick, false);
      }
      t.integrand(f, u, v + at, count);
    }
    block_sums[b] = sums.sum(v, size);
    squares[b] = sums.centred_square_sum(v, block_sums[b] / static_cast<float>(size), size);
  };
  if (num_sum_blocks(n) == 1) {
    block(0, 0);
  } else {
    context.pool().parallel(num_sum_blocks(n), block);
  }
  const auto [mean, m2] = merged_moments(block_sums, squares, n);
  const auto count = static_cast<double>(n);
  const double error = n == 1 ? std::numeric_limits<double>::quiet_NaN() : std::sqrt(m2 / (count - 1) / count);
  return {static_cast<float>(mean), static_cast<float>(error)};
}

}  // namespace graft
