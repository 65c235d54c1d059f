#include <cmath>

#include "graft/base/error.h"
#include "graft/recipes/recipes.h"
#include "graft/recipes/test_support.h"

namespace graft {
namespace {

using test::Call;
using test::random;
using test::Values;

double largest(const Values& x) {
  double most = 0;
  for (const float v : x) most = std::isnan(v) ? INFINITY : std::max(most, std::fabs(static_cast<double>(v)));
  return most;
}

TEST(Recipes, PdeIsItsKernels) {
  test::TestContext t(2);
  constexpr int64_t kH = 30, kW = 41;
  const Values u = random(kH * kW, 1), before = random(kH * kW, 2);
  const View<const float, 3> field(u.data(), 1, kH, kW);
  PdeOptions options;
  options.step = 0.2, options.steps = 7, options.boundary = Boundary::kPeriodic;
  const auto grid = [&](std::string_view kernel, std::string_view parameter, std::string_view value) {
    Call call(t.context, kernel);
    call.in("u", u, {kH, kW}).set(parameter, value).set("steps", "7").set("boundary", "periodic");
    return call;
  };
  EXPECT_EQ(pde_solver(t.context, options, field).u, grid("sim_heat_equation", "r", "0.2").out("u"));
  options.equation = Pde::kWave;
  const PdeResult wave = pde_solver(t.context, options, field, before);
  EXPECT_EQ(wave.u, grid("sim_wave_equation", "c2", "0.2").in("u_prev", before, {kH, kW}).out("u"));
  EXPECT_EQ(wave.previous, grid("sim_wave_equation", "c2", "0.2").in("u_prev", before, {kH, kW}).out("u_prev"));
  EXPECT_EQ(pde_solver(t.context, options, field).u,
            grid("sim_wave_equation", "c2", "0.2").in("u_prev", u, {kH, kW}).out("u"));

  const std::vector<int32_t> plane = {-1, 0, 0, -1, 0, 2, 1, 1}, space = {0, 0, 1, 0, -1, 0, 1, 0, 0};
  const Values four = {0.3f, 0.2f, 0.4f, 0.1f}, three = {0.5f, 0.25f, 0.25f};
  options.equation = Pde::kStencil2d, options.offsets = plane, options.coeffs = four, options.steps = 3;
  Values y = u;
  for (int s = 0; s < 3; ++s) {
    y = Call(t.context, "sim_stencil_2d")
            .in("u", y, {kH, kW})
            .in("offsets", plane, {4, 2})
            .in("coeffs", four)
            .set("boundary", "periodic")
            .out("y");
  }
  EXPECT_EQ(pde_solver(t.context, options, field).u, y);
  options.equation = Pde::kStencil3d, options.offsets = space, options.coeffs = three;
  options.boundary = Boundary::kFixed;
  y = u;
  for (int s = 0; s < 3; ++s) {
    y = Call(t.context, "sim_stencil_3d")
            .in("u", y, {5, 6, 41})
            .in("offsets", space, {3, 3})
            .in("coeffs", three)
            .out("y");
  }
  EXPECT_EQ(pde_solver(t.context, options, View<const float, 3>(u.data(), 5, 6, 41)).u, y);
  options.steps = 0;
  EXPECT_EQ(pde_solver(t.context, options, field).u, u);
  EXPECT_THROW(pde_solver(t.context, options, field, before), Error);  // no wave
  options.coeffs = four;
  EXPECT_THROW(pde_solver(t.context, options, field), Error);
  options.equation = Pde::kHeat, options.steps = -1;
  EXPECT_THROW(pde_solver(t.context, options, field), Error);
  options.steps = 1;
  EXPECT_THROW(pde_solver(t.context, options, View<const float, 3>(u.data(), 2, 15, 41)), Error);
}

// A warning comes exactly where the field grows without end.
TEST(Recipes, PdeWarnsOfUnstableSteps) {
  test::TestContext t(2);
  const Values u = random(32 * 32, 3);
  const View<const float, 3> field(u.data(), 1, 32, 32);
  const auto grows = [&](const PdeOptions& options) {
    const PdeResult r = pde_solver(t.context, options, field);
    const bool large = !(largest(r.u) < 1000);
    EXPECT_EQ(large, !r.warning.empty()) << options.step << ": " << r.warning;
    return large;
  };
  const std::vector<int32_t> cross = {0, 0, -1, 0, 1, 0, 0, -1, 0, 1}, forward = {0, 0, 0, 1};
  for (const auto equation : {Pde::kHeat, Pde::kWave, Pde::kStencil2d}) {
    const double limit = equation == Pde::kWave ? 0.5 : 0.25;
    for (const double factor : {0.5, 0.96, 1.2, -0.5}) {
      PdeOptions options;
      options.equation = equation, options.step = limit * factor, options.steps = 400;
      options.boundary = Boundary::kPeriodic;
      const auto r = static_cast<float>(options.step);
      const Values heat = {1 - 4 * r, r, r, r, r};
      options.offsets = cross, options.coeffs = heat;
      EXPECT_EQ(grows(options), factor > 1 || factor < 0);
    }
  }
  // A gradient by differences against the wind grows, along it it does not.
  PdeOptions wind;
  wind.equation = Pde::kStencil2d, wind.steps = 400, wind.boundary = Boundary::kPeriodic, wind.offsets = forward;
  const Values along = {0.5f, 0.5f}, against = {1.5f, -0.5f};
  wind.coeffs = along;
  EXPECT_FALSE(grows(wind));
  wind.coeffs = against;
  EXPECT_TRUE(grows(wind));
}

TEST(Recipes, BodiesAreTheirKernels) {
  test::TestContext t(2);
  constexpr int64_t kN = 200;
  const Gravity law{0.7, 0.1};
  Values mass = random(kN, 1), pos = random(3 * kN, 2), vel = random(3 * kN, 3, 0.1);
  for (float& m : mass) m = std::fabs(m) / kN;
  Values p = pos, v = vel, acc(p.size());
  const double before = gravity_energy(law, mass, p, v);
  for (int s = 0; s < 3; ++s) {
    const auto verlet = [&](std::string_view output) {
      gravity(t.context, law, mass, p, acc);
      return Call(t.context, "integrate_verlet")
          .in("pos", p)
          .in("vel", v)
          .in("acc", acc)
          .set("k", "0")
          .set("dt", "0.01")
          .out(output);
    };
    const Values half = verlet("vel"), moved = verlet("pos");
    p = moved, v = half;
    v = verlet("vel");
  }
  const EnergyDrift drift = n_body(t.context, law, mass, 0.01, 3, pos, vel);
  EXPECT_EQ(pos, p);
  EXPECT_EQ(vel, v);
  EXPECT_EQ(drift.before, before);
  EXPECT_EQ(drift.after, gravity_energy(law, mass, p, v));
  EXPECT_EQ(drift.drift, (drift.after - before) / std::fabs(before));
  EXPECT_THROW(n_body(t.context, law, mass, 0.01, -1, pos, vel), Error);
  EXPECT_THROW(n_body(t.context, law, Values(3), 0.01, 1, pos, vel), Error);
}

// Two bodies on a circle of radius 1 about their centre, masses 1 and 1: pull 1/4 = v^2, period 4 pi.
TEST(Recipes, TwoBodiesGoRoundAndKeepTheirEnergy) {
  test::TestContext t(1);
  const Values mass = {1, 1}, start = {1, 0, 0, -1, 0, 0};
  const auto turn = [&](int64_t steps, Values& pos) {
    pos = start;
    Values vel = {0, 0.5f, 0, 0, -0.5f, 0};
    return n_body(t.context, {}, mass, 4 * M_PI / static_cast<double>(steps), steps, pos, vel);
  };
  Values pos, acc(6);
  gravity(t.context, {}, mass, start, acc);
  EXPECT_EQ(acc, (Values{-0.25f, 0, 0, 0.25f, 0, 0}));
  const EnergyDrift fine = turn(2000, pos);
  EXPECT_DOUBLE_EQ(fine.before, 2 * 0.125 - 0.5);
  EXPECT_LT(std::fabs(fine.drift), 1e-4);
  for (size_t i = 0; i < pos.size(); ++i) EXPECT_NEAR(pos[i], start[i], 1e-3) << i;
  EXPECT_GT(std::fabs(turn(5, pos).drift), 0.01);  // steps far too long show in the drift
}

}  // namespace
}  // namespace graft
