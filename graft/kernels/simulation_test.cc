// grid.h and integrate.h.

#include "graft/kernels/grid.h"
#include "graft/kernels/integrate.h"
#include "graft/kernels/prng.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using Field = std::vector<double>;

// One step by the definition, f64. `before` empty: the heat equation.
void step(Field& u, Field& before, int64_t h, int64_t w, double factor, bool periodic) {
  Field next = u;
  const auto at = [&](int64_t i, int64_t j) { return u[static_cast<size_t>(((i + h) % h) * w + (j + w) % w)]; };
  for (int64_t i = 0; i < h; ++i) {
    for (int64_t j = 0; j < w; ++j) {
      if (!periodic && (i == 0 || j == 0 || i == h - 1 || j == w - 1)) continue;
      const double lap = at(i - 1, j) + at(i + 1, j) + at(i, j - 1) + at(i, j + 1) - 4 * at(i, j);
      const auto k = static_cast<size_t>(i * w + j);
      next[k] = before.empty() ? u[k] + factor * lap : 2 * u[k] - before[k] + factor * lap;
    }
  }
  if (!before.empty()) before = u;
  u = next;
}

TEST(Simulation, GridsByTheirDefinition) {
  for (const int threads : {1, 3}) {
    test::TestContext t(threads);
    for (const auto& [h, w] : {std::pair{1, 1}, {1, 9}, {9, 1}, {2, 2}, {3, 3}, {5, 17}, {33, 40}, {300, 257}}) {
      for (const int64_t steps : {0, 1, 2, 3, 4, 5, 9}) {
        for (const bool periodic : {false, true}) {
          for (const bool wave : {false, true}) {
            auto u = test::random_values<float>(h * w, 1), before = test::random_values<float>(wave ? h * w : 0, 2);
            Field want(u.begin(), u.end()), want_before(before.begin(), before.end());
            for (int64_t s = 0; s < steps; ++s) step(want, want_before, h, w, 0.2, periodic);
            t.context.reserve(grid_scratch(h, w));
            const Boundary boundary = periodic ? Boundary::kPeriodic : Boundary::kFixed;
            const View<float, 2> grid(u.data(), h, w);
            if (wave) {
              sim_wave_equation(t.context, 0.2, steps, boundary, grid, View<float, 2>(before.data(), h, w));
            } else {
              sim_heat_equation(t.context, 0.2, steps, boundary, grid);
            }
            for (size_t i = 0; i < u.size(); ++i) {
              ASSERT_NEAR(u[i], want[i], 3e-6) << h << "x" << w << " steps " << steps << (periodic ? " periodic" : "")
                                               << (wave ? " wave" : " heat") << " at " << i;
              if (wave) {
                ASSERT_NEAR(before[i], want_before[i], 3e-6) << h << "x" << w << " steps " << steps << " at " << i;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Simulation, StepsTogetherAreStepsAlone) {
  test::TestContext t(2);
  constexpr int64_t kHeight = 200, kWidth = 333;
  t.context.reserve(grid_scratch(kHeight, kWidth));
  for (const Boundary boundary : {Boundary::kFixed, Boundary::kPeriodic}) {
    auto u = test::random_values<float>(kHeight * kWidth, 3), p = test::random_values<float>(kHeight * kWidth, 4);
    auto v = u, q = p;
    const auto view = [&](std::vector<float>& x) { return View<float, 2>(x.data(), kHeight, kWidth); };
    sim_wave_equation(t.context, 0.3, 7, boundary, view(u), view(p));
    for (int i = 0; i < 7; ++i) sim_wave_equation(t.context, 0.3, 1, boundary, view(v), view(q));
    EXPECT_EQ(u, v);
    EXPECT_EQ(p, q);
    sim_heat_equation(t.context, 0.2, 6, boundary, view(u));
    for (int i = 0; i < 6; ++i) sim_heat_equation(t.context, 0.2, 1, boundary, view(v));
    EXPECT_EQ(u, v);
  }
}

TEST(Simulation, ThreadsAndVariantsAgreeOnBands) {
  for (const int64_t steps : {1, 2, 3, 4, 5}) {
    test::expect_same_bits(
        [&](Context& context) {
          constexpr int64_t kHeight = 170, kWidth = 1000;  // bands for up to five threads
          auto u = test::hostile_values(kHeight * kWidth, 1), p = test::random_values<float>(kHeight * kWidth, 2);
          context.reserve(grid_scratch(kHeight, kWidth));
          sim_wave_equation(context, 0.25, steps, Boundary::kPeriodic, View<float, 2>(u.data(), kHeight, kWidth),
                            View<float, 2>(p.data(), kHeight, kWidth));
          sim_heat_equation(context, 0.25, steps, Boundary::kFixed, View<float, 2>(p.data(), kHeight, kWidth));
          u.insert(u.end(), p.begin(), p.end());
          return u;
        },
        "grids");
  }
}

TEST(Simulation, StencilsByTheirDefinition) {
  test::TestContext t(2);
  const std::vector<std::vector<int32_t>> sets = {
      {0, 0, 0}, {0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 1, 0, 0, -1, 0, 1, 0, 0, -1, 0, 0}, {2, -3, 1, 0, 1, -2, -1, 0, 3}};
  for (const auto& shape :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 3, 3}, {7, 8, 9}, {6, 20, 50}, {1, 40, 100}, {4, 9, 500}}) {
    const int64_t depth = shape[0], h = shape[1], w = shape[2];
    for (const auto& offsets : sets) {
      for (const bool periodic : {false, true}) {
        for (const bool flat : {false, true}) {
          if (flat && depth != 1) continue;
          const auto m = static_cast<int64_t>(offsets.size() / 3);
          std::vector<int32_t> used;
          int64_t radius = 0;
          for (size_t i = 0; i < offsets.size(); ++i) {
            if (flat && i % 3 == 0) continue;
            used.push_back(offsets[i]);
            radius = std::max<int64_t>(radius, std::abs(offsets[i]));
          }
          const auto u = test::random_values<float>(depth * h * w, 5), c = test::random_values<float>(m, 6);
          std::vector<float> y(u.size());
          const View<const int32_t, 2> list(used.data(), m, flat ? 2 : 3);
          t.context.reserve(stencil_scratch(list, w));
          const Boundary boundary = periodic ? Boundary::kPeriodic : Boundary::kFixed;
          if (flat) {
            sim_stencil_2d(t.context, View<const float, 2>(u.data(), h, w), list, c, boundary,
                           View<float, 2>(y.data(), h, w));
          } else {
            sim_stencil_3d(t.context, View<const float, 3>(u.data(), depth, h, w), list, c, boundary,
                           View<float, 3>(y.data(), depth, h, w));
          }
          const auto held = [&](int64_t i, int64_t n) { return !periodic && (i < radius || i >= n - radius); };
          for (int64_t z = 0; z < depth; ++z) {
            for (int64_t i = 0; i < h; ++i) {
              for (int64_t j = 0; j < w; ++j) {
                const auto index = [&](int64_t a, int64_t b, int64_t e) {
                  const auto wrap = [](int64_t v, int64_t n) { return ((v % n) + n) % n; };
                  return static_cast<size_t>((wrap(a, depth) * h + wrap(b, h)) * w + wrap(e, w));
                };
                double want = u[index(z, i, j)];
                if (!((!flat && held(z, depth)) || held(i, h) || held(j, w))) {
                  want = 0;
                  for (size_t k = 0; k < static_cast<size_t>(m); ++k) {
                    const int64_t dz = flat ? 0 : offsets[3 * k];
                    want += static_cast<double>(c[k]) *
                            static_cast<double>(u[index(z + dz, i + offsets[3 * k + 1], j + offsets[3 * k + 2])]);
                  }
                }
                ASSERT_NEAR(y[index(z, i, j)], want, 2e-6)
                    << depth << " " << h << " " << w << " at " << z << " " << i << " " << j;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Simulation, RungeKutta) {
  test::TestContext t(2);
  t.context.reserve(rk4_scratch());
  // Decay has a closed form; the oscillator comes round; a right-hand side of one's own is the built-in one.
  for (const int64_t n : {1, 5, 63, 64, 100, 20000}) {
    auto y = test::random_values<float>(n, 7);
    const auto start = y;
    integrate_rk4(t.context, OdeSystem::kDecay, -1, 0, 0.01, 100, View<float, 2>(y.data(), n, 1));
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], start[i] * std::exp(-1.0), 1e-5);
    y = start;
    y.resize(start.size() * 2);
    const auto pairs = y;
    integrate_rk4(t.context, OdeSystem::kOscillator, 2 * M_PI, 0, 0.001, 1000, View<float, 2>(y.data(), n, 2));
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], pairs[i], 2e-4);
  }
  auto y = test::random_values<float>(300, 8);
  auto own = y;
  integrate_rk4(t.context, OdeSystem::kLorenz, 0, 0, 0.01, 20, View<float, 2>(y.data(), 100, 3));
  integrate_rk4<3>(
      t.context,
      [](double, const std::array<float, 3>& s) {
        return std::array<float, 3>{10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8.0f / 3 * s[2]};
      },
      0, 0.01, 20, View<float, 2>(own.data(), 100, 3));
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], own[i], 1e-5 * (1 + std::fabs(y[i])));
  // More steps than are prepared at once: y' = cos t - y from 1/2 is (sin t + cos t) / 2.
  std::vector<float> forced(3, 0.5f);
  integrate_rk4(t.context, OdeSystem::kForced, 1, 0, 0.005, 1300, View<float, 2>(forced.data(), 3, 1));
  for (const float v : forced) EXPECT_NEAR(v, (std::sin(6.5) + std::cos(6.5)) / 2, 2e-5);
}

TEST(Simulation, VerletKeepsItsEnergy) {
  test::TestContext t(2);
  auto x = test::random_values<float>(1001, 9), v = test::random_values<float>(1001, 10);
  std::vector<float> a(x.size());
  for (size_t i = 0; i < x.size(); ++i) a[i] = -2 * x[i];
  const auto energy = [&](size_t i) { return 0.5 * v[i] * v[i] + x[i] * x[i]; };
  std::vector<double> start(x.size());
  for (size_t i = 0; i < x.size(); ++i) start[i] = energy(i);
  integrate_verlet(t.context, 2, 0.01, 5000, x, v, a);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(energy(i), start[i], 2e-3 * (start[i] + 1e-3));  // dt^2 k / 4 is 5e-5; the rest is 5,000 roundings
    ASSERT_EQ(a[i], -2 * x[i]);
  }
}

TEST(Simulation, MonteCarlo) {
  test::TestContext t(2);
  constexpr int64_t kSamples = 300001;
  t.context.reserve(monte_carlo_scratch(kSamples));
  std::vector<float> u(3 * kSamples);
  prng_uniform_f32(t.context, 5, 6, 0, u);
  const auto f = [&](Integrand kind, size_t i) {
    const auto at = [&](size_t k) { return static_cast<double>(u[k]); };
    if (kind == Integrand::kArctan) return 4 / (1 + at(i) * at(i));
    if (kind == Integrand::kQuarterCircle)
      return at(2 * i) * at(2 * i) + at(2 * i + 1) * at(2 * i + 1) <= 1 ? 4.0 : 0.0;
    return std::exp(-at(3 * i) * at(3 * i) - at(3 * i + 1) * at(3 * i + 1) - at(3 * i + 2) * at(3 * i + 2));
  };
  for (const Integrand kind : {Integrand::kArctan, Integrand::kQuarterCircle, Integrand::kGauss3}) {
    for (const int64_t n : {int64_t{1}, int64_t{2}, int64_t{4097}, kSamples}) {
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; ++i) sum += f(kind, static_cast<size_t>(i));
      const double mean = sum / static_cast<double>(n);
      for (int64_t i = 0; i < n; ++i) squares += std::pow(f(kind, static_cast<size_t>(i)) - mean, 2);
      const MonteCarlo got = monte_carlo_integrate(t.context, kind, n, 5, 6);
      EXPECT_NEAR(got.estimate, mean, 4e-6 * mean);
      if (n == 1) {
        EXPECT_TRUE(std::isnan(got.std_error));
      } else {
        const double want = std::sqrt(squares / static_cast<double>(n - 1) / static_cast<double>(n));
        EXPECT_NEAR(got.std_error, want, 2e-4 * want);
      }
    }
  }
}

TEST(Simulation, WrongCallsAreErrors) {
  const auto refused = [](std::string_view name, std::string_view parameter, std::string_view text) {
    KernelCall call;
    find_kernel(name)->example(call, 100, 1);
    call.set_parameter(parameter, text);
    EXPECT_THROW(find_kernel(name)->prepare(call), Error) << name << " " << parameter << " " << text;
  };
  refused("sim_heat_equation", "steps", "-1");
  refused("sim_heat_equation", "boundary", "open");
  refused("sim_heat_equation", "r", "nan");
  refused("sim_stencil_2d", "boundary", "");
  refused("integrate_rk4", "rhs", "lorenz");  // y has one value a state
  refused("integrate_rk4", "dt", "inf");
  refused("integrate_rk4", "steps", "1000000000000");
  refused("monte_carlo_integrate", "n", "0");
  refused("monte_carlo_integrate", "n", "1000000000000000");
  refused("monte_carlo_integrate", "f", "sine");
  KernelCall call;
  find_kernel("sim_wave_equation")->example(call, 100, 1);
  call.add_input("u_prev", DType::kF32, {10, 9});
  EXPECT_THROW(find_kernel("sim_wave_equation")->prepare(call), Error);
  KernelCall far;
  find_kernel("sim_stencil_3d")->example(far, 100, 1);
  far.add_input("offsets", DType::kI32, {6, 3}).data.as<int32_t>()[4] = 1 << 20;
  EXPECT_THROW(find_kernel("sim_stencil_3d")->prepare(far), Error);
}

}  // namespace
}  // namespace graft
