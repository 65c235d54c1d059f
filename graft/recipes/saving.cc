// What the passes that recipes join save: the joined kernel beside the kernels one by one, on an example.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "graft/kernels/compact.h"
#include "graft/kernels/map.h"
#include "graft/kernels/prng.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

// Times of both in turns, medians.
void time_both(const std::function<void()>& joined, const std::function<void()>& apart, RecipeSaving& saving) {
  constexpr size_t kTurns = 9;
  constexpr double kSampleNs = 1e6;
  const auto time = [](const std::function<void()>& run, int64_t calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; ++i) run();
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    return spent.count() / static_cast<double>(calls);
  };
  joined(), apart();  // touches all memory
  const auto calls = static_cast<int64_t>(std::clamp(kSampleNs / std::max(time(apart, 1), 1.0), 1.0, 1e4));
  std::vector<double> one, many;
  for (size_t turn = 0; turn < kTurns; ++turn) {
    one.push_back(time(joined, calls));
    many.push_back(time(apart, calls));
  }
  const auto median = [](std::vector<double>& x) {
    std::nth_element(x.begin(), x.begin() + kTurns / 2, x.end());
    return x[kTurns / 2];
  };
  saving.ns = median(one), saving.ns_apart = median(many);
}

std::vector<float> normals(Context& context, int64_t n, uint64_t seed, uint64_t stream) {
  return random_init(context, InitKind::kNormal, 0, 1, seed, stream, n);
}

RecipeSaving moments(Context& context, int64_t n, uint64_t seed) {
  const double size = static_cast<double>(n);
  RecipeSaving s = {"reduce_mean, reduce_var, reduce_argmin, reduce_argmax", 4 * size, 16 * size, 0, 0};
  const std::vector<float> x = normals(context, n, seed, 0);
  context.reserve(reduce_moments_scratch(n));
  context.reserve(reduce_scratch(n));
  time_both([&] { reduce_moments(context, x); },
            [&] {
              reduce_mean(context, x), reduce_var(context, x, 0);
              reduce_argmin(context, x), reduce_argmax(context, x);
            },
            s);
  return s;
}

RecipeSaving compaction(Context& context, int64_t n, uint64_t seed) {
  const std::vector<float> x = normals(context, n, seed, 0), zero(x.size());
  std::vector<float> y(x.size());
  std::vector<uint8_t> mask(x.size());
  context.reserve(compact_scratch(n));
  const double size = static_cast<double>(n), kept = compact_if(context, x, 0, y);
  RecipeSaving s = {"map_compare, compact_mask", 4 * size + 4 * kept, 14 * size + 4 * kept, 0, 0};
  time_both([&] { compact_if(context, x, 0, y); },
            [&] {
              map_compare(context, x, zero, Comparison::kGt, mask);
              compact_mask(context, x, mask, y);
            },
            s);
  return s;
}

RecipeSaving update(Context& context, int64_t n, uint64_t seed) {
  const double size = static_cast<double>(n);
  RecipeSaving s = {"grad_clip_norm, opt_adamw", 32 * size, 40 * size, 0, 0};
  const std::vector<float> grad = normals(context, n, seed, 0);
  std::vector<float> param = normals(context, n, seed, 1), m(grad.size()), v(grad.size()), clipped(grad.size());
  AdamWStep step;
  step.t = 1;
  context.reserve(sum_squares_scratch(n));
  time_both([&] { fused_adam_clip_update(context, step, ClipMode::kNorm, 1, grad, param, m, v); },
            [&] {
              grad_clip_norm(context, grad, 1, clipped);
              opt_adamw(context, step, clipped, param, m, v);
            },
            s);
  return s;
}

RecipeSaving heat(Context& context, int64_t n, uint64_t seed) {
  const int64_t side = std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(static_cast<double>(n))));
  const double size = static_cast<double>(side * side);
  RecipeSaving s = {"four steps of sim_heat_equation", 8 * size, 32 * size, 0, 0};
  std::vector<float> u = normals(context, side * side, seed, 0);
  const View<float, 2> grid(u.data(), side, side);
  context.reserve(grid_scratch(side, side));
  time_both([&] { sim_heat_equation(context, 0.1, 4, Boundary::kFixed, grid); },
            [&] {
              for (int step = 0; step < 4; ++step) sim_heat_equation(context, 0.1, 1, Boundary::kFixed, grid);
            },
            s);
  return s;
}

}  // namespace

std::optional<RecipeSaving> recipe_saving(Context& context, std::string_view recipe, int64_t size, uint64_t seed) {
  if (recipe == "describe_stats" || recipe == "data_analysis") return moments(context, size, seed);
  if (recipe == "etl") return compaction(context, size, seed);
  if (recipe == "training_step") return update(context, size, seed);
  if (recipe == "pde_solver") return heat(context, size, seed);
  return std::nullopt;
}

}  // namespace graft
