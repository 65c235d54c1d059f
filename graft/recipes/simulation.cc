#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/kernels/integrate.h"
#include "graft/kernels/rows.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

// The largest factor by which a step multiplies a wave, over 16 wave numbers an axis from -pi to pi (von Neumann).
double growth_of(std::span<const int32_t> offsets, std::span<const float> coeffs, size_t rank) {
  constexpr int kHalf = 8;
  const auto angle = [](int i) { return M_PI * i / kHalf; };
  double most = 0;
  for (int a = 0; a <= kHalf; ++a) {  // the other half is the conjugate
    for (int b = -kHalf; b < kHalf; ++b) {
      for (int c = rank == 3 ? -kHalf : 0; c < (rank == 3 ? kHalf : 1); ++c) {
        double re = 0, im = 0;
        for (size_t k = 0; k < coeffs.size(); ++k) {
          const int32_t* o = offsets.data() + k * rank;
          const double phase = angle(a) * o[0] + angle(b) * o[1] + (rank == 3 ? angle(c) * o[2] : 0);
          re += static_cast<double>(coeffs[k]) * std::cos(phase);
          im += static_cast<double>(coeffs[k]) * std::sin(phase);
        }
        most = std::max(most, std::hypot(re, im));
      }
    }
  }
  return most;
}

std::string warning_of(const PdeOptions& o, size_t rank) {
  switch (o.equation) {
    case Pde::kHeat:
      if (o.step >= 0 && o.step <= 0.25) return {};
      return fmt::format("the step is unstable: r = alpha dt / dx^2 is {}, stable from 0 to 0.25", o.step);
    case Pde::kWave:
      if (o.step >= 0 && o.step <= 0.5) return {};
      return fmt::format("the step is unstable: (c dt / dx)^2 is {}, stable from 0 to 0.5", o.step);
    default: break;
  }
  const double growth = growth_of(o.offsets, o.coeffs, rank);
  if (growth <= 1 + 1e-5) return {};  // coefficients are rounded to f32
  return fmt::format("the step is unstable: the stencil multiplies some wave by {:.6g} a step, stable to 1", growth);
}

}  // namespace

PdeResult pde_solver(Context& context, const PdeOptions& options, View<const float, 3> u,
                     std::span<const float> previous) {
  const bool stencil = options.equation == Pde::kStencil2d || options.equation == Pde::kStencil3d;
  const bool wave = options.equation == Pde::kWave;
  const size_t rank = options.equation == Pde::kStencil3d ? 3 : 2;
  const int64_t depth = u.extent(0), height = u.extent(1), width = u.extent(2);
  GRAFT_CHECK(u.contiguous() && (rank == 3 || depth == 1),
              "a field of {} planes, expected contiguous ones, and one in two dimensions", depth);
  GRAFT_CHECK(options.steps >= 0, "{} steps, expected 0 or more", options.steps);
  GRAFT_CHECK(std::isfinite(options.step), "a step of {}, expected a finite one", options.step);
  GRAFT_CHECK(previous.empty() || (wave && static_cast<int64_t>(previous.size()) == u.size()),
              "a field of {} values before this one of {}, expected as many, and the wave equation", previous.size(),
              u.size());
  if (stencil) {
    GRAFT_CHECK(!options.coeffs.empty() && options.coeffs.size() <= 4096 &&
                    options.offsets.size() == rank * options.coeffs.size(),
                "a stencil of {} coefficients and {} offsets, expected 1 to 4096 and {} for each",
                options.coeffs.size(), options.offsets.size(), rank);
    for (const int32_t v : options.offsets) {
      GRAFT_CHECK(v >= -4096 && v <= 4096, "a stencil has offset {}, expected -4096 to 4096", v);
    }
  }
  PdeResult result;
  result.warning = warning_of(options, rank);
  result.u.assign(u.data(), u.data() + u.size());
  if (!stencil) {
    const View<float, 2> grid(result.u.data(), height, width);
    context.reserve(grid_scratch(height, width));
    if (!wave) {
      sim_heat_equation(context, options.step, options.steps, options.boundary, grid);
      return result;
    }
    result.previous = previous.empty() ? result.u : std::vector<float>(previous.begin(), previous.end());
    sim_wave_equation(context, options.step, options.steps, options.boundary, grid,
                      View<float, 2>(result.previous.data(), height, width));
    return result;
  }
  const View<const int32_t, 2> offsets(options.offsets.data(), options.coeffs.size(), rank);
  context.reserve(stencil_scratch(offsets, width));
  std::vector<float> next(result.u.size());
  for (int64_t s = 0; s < options.steps; ++s) {
    if (rank == 2) {
      sim_stencil_2d(context, View<const float, 2>(result.u.data(), height, width), offsets, options.coeffs,
                     options.boundary, View<float, 2>(next.data(), height, width));
    } else {
      sim_stencil_3d(context, View<const float, 3>(result.u.data(), depth, height, width), offsets, options.coeffs,
                     options.boundary, View<float, 3>(next.data(), depth, height, width));
    }
    result.u.swap(next);
  }
  return result;
}

void gravity(Context& context, const Gravity& law, std::span<const float> mass, std::span<const float> pos,
             std::span<float> acc) {
  const auto n = static_cast<int64_t>(mass.size());
  GRAFT_CHECK(pos.size() == 3 * mass.size() && acc.size() == pos.size(),
              "{} positions and {} accelerations of {} bodies, expected three for each", pos.size(), acc.size(), n);
  const double softening = law.softening * law.softening;
  for_row_ranges(context, n, n, [&](int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      std::array<double, 3> sum{};
      for (size_t j = 0; j < mass.size(); ++j) {
        if (j == i) continue;
        std::array<double, 3> away;
        double square = softening;
        for (size_t d = 0; d < 3; ++d) {
          away[d] = static_cast<double>(pos[3 * j + d]) - static_cast<double>(pos[3 * i + d]);
          square += away[d] * away[d];
        }
        const double pull = static_cast<double>(mass[j]) / (square * std::sqrt(square));
        for (size_t d = 0; d < 3; ++d) sum[d] += pull * away[d];
      }
      for (size_t d = 0; d < 3; ++d) acc[3 * i + d] = static_cast<float>(law.constant * sum[d]);
    }
  });
}

double gravity_energy(const Gravity& law, std::span<const float> mass, std::span<const float> pos,
                      std::span<const float> vel) {
  double energy = 0;
  for (size_t i = 0; i < mass.size(); ++i) {
    const auto m = static_cast<double>(mass[i]);
    for (size_t d = 0; d < 3; ++d) {
      const auto v = static_cast<double>(vel[3 * i + d]);
      energy += m * v * v / 2;
    }
    for (size_t j = 0; j < i; ++j) {
      double square = law.softening * law.softening;
      for (size_t d = 0; d < 3; ++d) {
        const double away = static_cast<double>(pos[3 * j + d]) - static_cast<double>(pos[3 * i + d]);
        square += away * away;
      }
      energy -= law.constant * m * static_cast<double>(mass[j]) / std::sqrt(square);
    }
  }
  return energy;
}

EnergyDrift n_body(Context& context, const Gravity& law, std::span<const float> mass, double dt, int64_t steps,
                   std::span<float> pos, std::span<float> vel) {
  GRAFT_CHECK(pos.size() == 3 * mass.size() && vel.size() == pos.size(),
              "{} positions and {} velocities of {} bodies, expected three for each", pos.size(), vel.size(),
              mass.size());
  GRAFT_CHECK(steps >= 0 && std::isfinite(dt), "{} steps of {}, expected 0 or more, finite ones", steps, dt);
  EnergyDrift drift{gravity_energy(law, mass, pos, vel), 0, 0};
  std::vector<float> acc(pos.size()), half(pos.size()), unmoved(pos.size());
  gravity(context, law, mass, pos, acc);
  for (int64_t s = 0; s < steps; ++s) {
    // Without springs (k = 0) a step moves the bodies by vel dt + acc dt^2 / 2 and adds half a step of acc to vel, then clears acc.
    integrate_verlet(context, 0, dt, 1, pos, vel, acc);
    gravity(context, law, mass, pos, acc);
    std::copy(acc.begin(), acc.end(), half.begin());
    std::copy(pos.begin(), pos.end(), unmoved.begin());
    integrate_verlet(context, 0, dt, 1, unmoved, vel, half);  // the second half; where it moves bodies to is not used
  }
  drift.after = gravity_energy(law, mass, pos, vel);
  drift.drift = (drift.after - drift.before) / (drift.before == 0 ? 1 : std::fabs(drift.before));
  return drift;
}

}  // namespace graft
