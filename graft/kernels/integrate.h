#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/rows.h"

namespace graft {

// Many small systems side by side, all steps in registers; constants are derived in f64 and rounded once. The same bits from every variant and thread
// count. Source: spec/kernels.md, section 21.

enum class OdeSystem : uint8_t {
  kDecay,       // y' = p y; one value
  kForced,      // y' = cos t - p y; one value
  kOscillator,  // (x, v)' = (v, -p^2 x)
  kLorenz,      // (10 (y - x), x (28 - z) - y, x y - 8/3 z)
};
int64_t ode_size(OdeSystem system) noexcept;  // values of a state: 1, 1, 2, 3

// Classic fourth-order Runge-Kutta: y of [n, ode_size] after `steps` steps of dt from t0 + s dt, in place. r 1e-6 + 4e-7 steps.
// Scratch: rk4_scratch().
ScratchNeed rk4_scratch() noexcept;
void integrate_rk4(Context& context, OdeSystem system, double p, double t0, double dt, int64_t steps,
                   View<float, 2> y) noexcept;

// The same for a right-hand side of one's own: rhs(t, state) gives the derivative of a state of K values, t in f64. Scalar.
template <size_t K, typename Rhs>
void integrate_rk4(Context& context, const Rhs& rhs, double t0, double dt, int64_t steps, View<float, 2> y) noexcept {
  using State = std::array<float, K>;
  const auto moved = [](const State& s, float h, const State& k) {
    State out;
    for (size_t i = 0; i < K; ++i) out[i] = s[i] + h * k[i];
    return out;
  };
  const auto h = static_cast<float>(dt), half = static_cast<float>(dt / 2), sixth = static_cast<float>(dt / 6);
  for_row_ranges(context, y.extent(0), static_cast<int64_t>(K), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      State s;
      std::copy_n(y.row(i), K, s.begin());
      for (int64_t step = 0; step < steps; ++step) {
        const double t = t0 + static_cast<double>(step) * dt;
        const State a = rhs(t, s), b = rhs(t + dt / 2, moved(s, half, a)), c = rhs(t + dt / 2, moved(s, half, b)),
                    d = rhs(t + dt, moved(s, h, c));
        for (size_t j = 0; j < K; ++j) s[j] += sixth * (a[j] + 2 * b[j] + 2 * c[j] + d[j]);
      }
      std::copy_n(s.begin(), K, y.row(i));
    }
  });
}

// Velocity Verlet with a = -k x: pos += vel dt + acc dt^2 / 2; a' = -k pos; vel += (acc + a') dt / 2; acc = a'. In place, all of one length.
void integrate_verlet(Context& context, double k, double dt, int64_t steps, std::span<float> pos, std::span<float> vel,
                      std::span<float> acc) noexcept;

// The mean of f over n points of the unit cube and its standard error sqrt(sum (f - mean)^2 / (n - 1) / n): NaN where n is 1. Coordinates of sample
// i are the uniforms (prng.h) of words i d ... i d + d - 1 of the stream. Sums by blocks of 4,096 as reduce_var has them. n >= 1.
// r 4e-6, the error r 2e-4. Scratch: monte_carlo_scratch.
enum class Integrand : uint8_t {
  kArctan,         // 4 / (1 + x^2): pi
  kQuarterCircle,  // 4 where x^2 + y^2 <= 1, decided exactly: pi
  kGauss3,         // e^-(x^2 + y^2 + z^2)
};
struct MonteCarlo {
  float estimate, std_error;
};
ScratchNeed monte_carlo_scratch(int64_t n) noexcept;
MonteCarlo monte_carlo_integrate(Context& context, Integrand f, int64_t n, uint64_t seed, uint64_t stream) noexcept;

}  // namespace graft
