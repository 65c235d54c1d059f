// The rows of the simulation kernels (grid.h, integrate.h) in the registry.

#include <algorithm>
#include <array>
#include <cmath>

#include "graft/kernels/grid.h"
#include "graft/kernels/integrate.h"
#include "graft/kernels/kernel_rows.h"

namespace graft {
namespace {

Boundary boundary_of(const KernelCall& call) {
  return static_cast<Boundary>(choice<2>(call, "boundary", {"fixed", "periodic"}));
}
int64_t steps_of(const KernelCall& call) {
  const int64_t steps = call.integer("steps", 1);
  GRAFT_CHECK(steps >= 0 && steps <= int64_t{1} << 40, "parameter 'steps' is {}, expected 0 to 2^40", steps);
  return steps;
}
double number(const KernelCall& call, std::string_view name, double otherwise) {
  const double value = call.real(name, otherwise);
  GRAFT_CHECK(std::isfinite(value), "parameter '{}' is {}, expected a finite number", name, value);
  return value;
}

// What the kernel changes in place: the output starts as a copy of the input, and a repeated run goes on from there.
void make_copy(KernelCall& call, std::string_view name) {
  const auto from = call.in<float>(name);
  call.make(name, DType::kF32, call.in_shape(name));
  const auto to = call.out<float>(name);
  if (to.data() != from.data()) std::copy(from.begin(), from.end(), to.begin());
}
View<float, 2> grid_of(KernelCall& call, std::string_view name) {
  const auto extents = call.in_view<float, 2>(name).extents();
  return View<float, 2>(call.out<float>(name).data(), extents[0], extents[1]);
}

ScratchNeed prepare_grid(KernelCall& call) {
  const auto u = call.in_view<float, 2>("u");
  boundary_of(call);
  steps_of(call);
  make_copy(call, "u");
  return grid_scratch(u.extent(0), u.extent(1));
}
ScratchNeed prepare_heat(KernelCall& call) {
  number(call, "r", 0.1);
  return prepare_grid(call);
}
ScratchNeed prepare_wave(KernelCall& call) {
  number(call, "c2", 0.01);
  same_shape(call, "u", "u_prev");
  make_copy(call, "u_prev");
  return prepare_grid(call);
}
void run_heat(Context& context, KernelCall& call) {
  sim_heat_equation(context, call.real("r", 0.1), steps_of(call), boundary_of(call), grid_of(call, "u"));
}
void run_wave(Context& context, KernelCall& call) {
  sim_wave_equation(context, call.real("c2", 0.01), steps_of(call), boundary_of(call), grid_of(call, "u"),
                    grid_of(call, "u_prev"));
}

template <int kRank>
ScratchNeed prepare_stencil(KernelCall& call) {
  const auto u = call.in_view<float, kRank>("u");
  const auto offsets = call.in_view<int32_t, 2>("offsets");
  const auto coeffs = call.in_view<float, 1>("coeffs");
  GRAFT_CHECK(offsets.extent(1) == kRank && offsets.extent(0) >= 1 && offsets.extent(0) <= 4096 &&
                  offsets.extent(0) == coeffs.extent(0),
              "inputs 'offsets' [{}] and 'coeffs' [{}], expected [m, {}] and [m] with m of 1 to 4096",
              fmt::join(call.in_shape("offsets"), ", "), fmt::join(call.in_shape("coeffs"), ", "), kRank);
  for (const int32_t v : call.in<int32_t>("offsets")) {
    GRAFT_CHECK(v >= -4096 && v <= 4096, "input 'offsets' has {}, expected -4096 to 4096", v);
  }
  boundary_of(call);
  call.make("y", DType::kF32, call.in_shape("u"));
  return stencil_scratch(offsets, u.extent(kRank - 1));
}
void run_stencil_2d(Context& context, KernelCall& call) {
  const auto u = call.in_view<float, 2>("u");
  sim_stencil_2d(context, u, call.in_view<int32_t, 2>("offsets"), call.in<float>("coeffs"), boundary_of(call),
                 View<float, 2>(call.out<float>("y").data(), u.extents(), u.strides()));
}
void run_stencil_3d(Context& context, KernelCall& call) {
  const auto u = call.in_view<float, 3>("u");
  sim_stencil_3d(context, u, call.in_view<int32_t, 2>("offsets"), call.in<float>("coeffs"), boundary_of(call),
                 View<float, 3>(call.out<float>("y").data(), u.extents(), u.strides()));
}

OdeSystem system_of(const KernelCall& call) {
  return static_cast<OdeSystem>(choice<4>(call, "rhs", {"decay", "forced", "oscillator", "lorenz"}));
}
ScratchNeed prepare_rk4(KernelCall& call) {
  const auto y = call.in_view<float, 2>("y");
  GRAFT_CHECK(y.extent(1) == ode_size(system_of(call)), "input 'y' is [{}], expected [n, {}] for this right-hand side",
              fmt::join(call.in_shape("y"), ", "), ode_size(system_of(call)));
  number(call, "p", -1);
  const double end = number(call, "t0", 0) + number(call, "dt", 0.01) * static_cast<double>(steps_of(call));
  GRAFT_CHECK(std::fabs(end) < 1e6, "parameters 't0', 'dt' and 'steps' end at {}, expected below a million", end);
  make_copy(call, "y");
  return rk4_scratch();
}
void run_rk4(Context& context, KernelCall& call) {
  integrate_rk4(context, system_of(call), call.real("p", -1), call.real("t0", 0), call.real("dt", 0.01), steps_of(call),
                grid_of(call, "y"));
}

ScratchNeed prepare_verlet(KernelCall& call) {
  same_shape(call, "pos", "vel");
  same_shape(call, "pos", "acc");
  for (const auto* name : {"pos", "vel", "acc"}) make_copy(call, name);
  number(call, "k", 2);
  number(call, "dt", 0.01);
  steps_of(call);
  return {};
}
void run_verlet(Context& context, KernelCall& call) {
  integrate_verlet(context, call.real("k", 2), call.real("dt", 0.01), steps_of(call), call.out<float>("pos"),
                   call.out<float>("vel"), call.out<float>("acc"));
}

Integrand integrand_of(const KernelCall& call) {
  return static_cast<Integrand>(choice<3>(call, "f", {"arctan", "quarter_circle", "gauss3"}));
}
ScratchNeed prepare_monte_carlo(KernelCall& call) {
  const int64_t n = call.integer("n", 0);
  GRAFT_CHECK(n >= 1 && n <= int64_t{1} << 36, "parameter 'n' is {}, expected 1 to 2^36 samples", n);
  integrand_of(call);
  call.natural("seed", 0);
  call.natural("stream", 0);
  call.make("estimate", DType::kF32, {1});
  call.make("std_error", DType::kF32, {1});
  return monte_carlo_scratch(n);
}
void run_monte_carlo(Context& context, KernelCall& call) {
  const MonteCarlo result = monte_carlo_integrate(context, integrand_of(call), call.integer("n", 0),
                                                  call.natural("seed", 0), call.natural("stream", 0));
  call.out<float>("estimate")[0] = result.estimate;
  call.out<float>("std_error")[0] = result.std_error;
}

// A square or cube of about `size` cells; 1024^2 for 1M and more.
int64_t side(int64_t size, double power, int64_t most) {
  return std::min(most, std::max<int64_t>(1, std::llround(std::pow(static_cast<double>(size), power))));
}
template <bool kWave>
void example_grid(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t n = size >= 1000000 ? 1024 : side(size, 0.5, 1024);
  add_uniform(call, "u", {n, n}, seed);
  if (kWave) add_uniform(call, "u_prev", {n, n}, seed + 1);
  call.set_parameter("steps", "4");
}
template <int kRank>
void example_stencil(KernelCall& call, int64_t size, uint64_t seed) {
  if constexpr (kRank == 2) {
    const int64_t n = size >= 1000000 ? 1024 : side(size, 0.5, 1024);
    add_uniform(call, "u", {n, n}, seed);
  } else {
    const int64_t n = size >= 10000000 ? 128 : side(size, 1.0 / 3, 64);
    add_uniform(call, "u", {n, n, n}, seed);
  }
  // The mean of the neighbours along every axis.
  KernelTensor& offsets = call.add_input("offsets", DType::kI32, {2 * kRank, kRank});
  KernelTensor& coeffs = call.add_input("coeffs", DType::kF32, {2 * kRank});
  for (size_t k = 0; k < 2 * kRank; ++k) {
    offsets.data.as<int32_t>()[k * kRank + k / 2] = k % 2 == 0 ? -1 : 1;
    coeffs.data.as<float>()[k] = 1.0f / (2 * kRank);
  }
}
void example_rk4(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "y", {size >= 10000000 ? 100000 : size, 1}, seed);
  call.set_parameter("steps", "1");
}
void example_verlet(KernelCall& call, int64_t size, uint64_t seed) {
  const std::vector<int64_t> shape = size >= 10000000 ? std::vector<int64_t>{10000, 3} : std::vector<int64_t>{size};
  for (const auto* name : {"pos", "vel", "acc"}) add_uniform(call, name, shape, seed++);
  call.set_parameter("steps", "1");
}
void example_monte_carlo(KernelCall& call, int64_t size, uint64_t seed) {
  call.set_parameter("n", fmt::to_string(std::min<int64_t>(size, 1000000)));
  call.set_parameter("seed", fmt::to_string(seed));
  call.set_parameter("stream", "5");
}

// Four steps go over the grid in one pass.
template <int kBytes>
double bytes_of_grid(const KernelCall& call) {
  return kBytes * length_of(call, "u") * static_cast<double>((steps_of(call) + 3) / 4);
}
template <int kOps>
double flops_of_grid(const KernelCall& call) {
  return kOps * length_of(call, "u") * static_cast<double>(steps_of(call));
}
double bytes_of_stencil(const KernelCall& call) { return 8 * length_of(call, "u"); }
double flops_of_stencil(const KernelCall& call) { return 2 * length_of(call, "coeffs") * length_of(call, "u"); }
double bytes_of_rk4(const KernelCall& call) { return 8 * length_of(call, "y"); }
double flops_of_rk4(const KernelCall& call) {
  constexpr std::array<double, 4> kOps = {11, 15, 13, 20};  // a value and step
  return kOps[static_cast<size_t>(system_of(call))] * length_of(call, "y") * static_cast<double>(steps_of(call));
}
double bytes_of_verlet(const KernelCall& call) { return 24 * length_of(call, "pos"); }
double flops_of_verlet(const KernelCall& call) {
  return 9 * length_of(call, "pos") * static_cast<double>(steps_of(call));
}
double no_bytes(const KernelCall& /*call*/) { return 8; }
double flops_of_monte_carlo(const KernelCall& call) {
  constexpr std::array<double, 3> kOps = {15 + 3, 30 + 4, 45 + 5 + kTranscendental};
  return kOps[static_cast<size_t>(integrand_of(call))] * static_cast<double>(call.integer("n", 0));
}

}  // namespace

std::span<const KernelInfo> simulation_kernels() {
  static constexpr std::string_view kDomain = "simulation";
  static constexpr KernelInfo kRows[] = {
      {"sim_heat_equation", kDomain, "u[H,W] += r (4 neighbours - 4 u), steps times", bytes_of_grid<8>,
       flops_of_grid<6>, prepare_heat, run_heat, example_grid<false>, "u=u"},
      {"sim_wave_equation", kDomain, "u[H,W] = 2 u - u_prev + c2 (4 neighbours - 4 u), steps times", bytes_of_grid<12>,
       flops_of_grid<8>, prepare_wave, run_wave, example_grid<true>, "u=u u_prev=u_prev"},
      {"sim_stencil_2d", kDomain, "y[H,W] = sum of coeffs[m] u[. + offsets[m,2]]", bytes_of_stencil, flops_of_stencil,
       prepare_stencil<2>, run_stencil_2d, example_stencil<2>},
      {"sim_stencil_3d", kDomain, "y[D,H,W] = sum of coeffs[m] u[. + offsets[m,3]]", bytes_of_stencil, flops_of_stencil,
       prepare_stencil<3>, run_stencil_3d, example_stencil<3>},
      {"integrate_rk4", kDomain, "y[n,k] after Runge-Kutta steps of a system", bytes_of_rk4, flops_of_rk4, prepare_rk4,
       run_rk4, example_rk4, "y=y"},
      {"integrate_verlet", kDomain, "pos, vel, acc[n] after velocity Verlet steps, a = -k x", bytes_of_verlet,
       flops_of_verlet, prepare_verlet, run_verlet, example_verlet, "pos=pos vel=vel acc=acc"},
      {"monte_carlo_integrate", kDomain, "mean of f over n points of the unit cube, and its error", no_bytes,
       flops_of_monte_carlo, prepare_monte_carlo, run_monte_carlo, example_monte_carlo},
  };
  return kRows;
}

}  // namespace graft
