// Every recipe on an example of its own, for `graft recipe run`.

#include "graft/recipes/recipes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/base/random.h"

namespace graft {
namespace {

using Values = std::vector<float>;
using Result = std::vector<RecipeValue>;

template <typename T>
RecipeValue named(std::string_view name, const std::vector<T>& values) {
  return {name, std::vector<double>(values.begin(), values.end())};
}
template <typename T>
RecipeValue named(std::string_view name, T value) {
  return {name, {static_cast<double>(value)}};
}

Values uniform(Context& context, int64_t n, uint64_t seed, std::string_view name, double low = -1, double high = 1) {
  return random_init(context, InitKind::kUniform, low, high, seed, stream_hash(name), n);
}

// Skewed prices, of which some are missing (negative).
Result run_etl(Context& context, int64_t size, uint64_t seed) {
  Values x = uniform(context, size, seed, "prices", -0.2, 3);
  const EtlResult r = etl(context, x, {});
  return {named("kept", r.values.size()), named("dropped", r.dropped), named("mean", r.mean),
          named("values", r.values)};
}

Result run_statistics(Context& context, int64_t size, uint64_t seed) {
  const Values x = random_init(context, InitKind::kNormal, 5, 2, seed, 0, size);
  const Statistics s = describe_stats(context, x, 16);
  return {named("mean", s.mean),          named("variance", s.variance), named("min", s.min.value),
          named("max", s.max.value),      named("argmin", s.min.index),  named("argmax", s.max.index),
          named("histogram", s.histogram)};
}

Result run_pca(Context& context, int64_t size, uint64_t seed) {
  const int64_t columns = std::min<int64_t>(8, size), rows = size / columns;
  const Values x = uniform(context, rows * columns, seed, "x");
  const PcaInput p = pca_prep(context, View<const float, 2>(x.data(), rows, columns));
  return {named("mean", p.mean), named("covariance", p.covariance)};
}

Result run_init(Context& context, int64_t size, uint64_t seed) {
  return {named("uniform", random_init(context, InitKind::kUniform, -0.1, 0.1, seed, 1, size)),
          named("normal", random_init(context, InitKind::kNormal, 0, 0.02, seed, 2, size)),
          named("bernoulli", random_init(context, InitKind::kBernoulli, 0.9, 0, seed, 3, size))};
}

// A layer of 64 features, four heads over two.
struct ExampleLayer {
  ExampleLayer(Context& context, uint64_t seed, bool gated) : norm(64, 1.0f) {
    const auto draw = [&](std::string_view name, int64_t in, int64_t out) {
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      return uniform(context, in * out, seed, name, -bound, bound);
    };
    q = draw("q", 64, 64), k = draw("k", 64, 32), v = draw("v", 64, 32), o = draw("o", 64, 64);
    up = draw("up", 64, 128), down = draw("down", 128, 64);
    if (gated) gate = draw("gate", 64, 128);
    weights.hidden = 64, weights.heads = 4, weights.kv_heads = 2, weights.inner = 128;
    weights.attention_norm = weights.mlp_norm = norm;
    weights.q = q, weights.k = k, weights.v = v, weights.o = o;
    weights.gate = gate, weights.up = up, weights.down = down;
  }
  Values norm, q, k, v, o, gate, up, down;
  BlockWeights weights;
};

Result run_block(Context& context, int64_t size, uint64_t seed) {
  const ExampleLayer layer(context, seed, true);
  const int64_t rows = std::max<int64_t>(1, size / 64);
  const Values x = uniform(context, rows * 64, seed, "x");
  return {named("rows", rows),
          named("y", transformer_block(context, layer.weights, View<const float, 2>(x.data(), rows, 64)))};
}

Result run_inference(Context& context, int64_t size, uint64_t seed) {
  constexpr int64_t kVocabulary = 100;
  const ExampleLayer layer(context, seed, false);
  const Values embedding = uniform(context, kVocabulary * 64, seed, "embedding");
  const RandomStream stream(seed, stream_hash("tokens"));
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < std::max<int64_t>(1, size / 64); ++i) {
    tokens.push_back(static_cast<int32_t>(stream.word(static_cast<uint64_t>(i)) % kVocabulary));
  }
  const View<const float, 2> rows(embedding.data(), kVocabulary, 64);
  return {named("tokens", tokens), named("y", ml_inference(context, layer.weights, rows, tokens))};
}

Result run_diffusion(Context& context, int64_t size, uint64_t seed) {
  constexpr int64_t kChannels = 16;
  const int64_t length = std::max<int64_t>(1, size / kChannels);
  const Values x = random_init(context, InitKind::kNormal, 0, 1, seed, 0, kChannels * length);
  const Values schedule = {0.4f, 0.3f, 0.2f, 0.1f};
  return {named("sample", diffusion(context, View<const float, 2>(x.data(), kChannels, length), 4, schedule))};
}

Result run_training(Context& context, int64_t size, uint64_t seed) {
  Values param = uniform(context, size, seed, "param"), m(param.size()), v(param.size());
  const Values grad = uniform(context, size, seed, "grad");
  const float norm = training_step(context, {}, grad, {param, m, v});
  return {named("gradient_norm", norm), named("param", param)};
}

// A path of springs, every tenth tied to the ground: symmetric and positive definite.
struct Springs {
  explicit Springs(int64_t n) {
    rows.push_back(0);
    for (int64_t i = 0; i < n; ++i) {
      const auto add = [&](int64_t column, float value) {
        columns.push_back(static_cast<uint32_t>(column));
        values.push_back(value);
      };
      if (i > 0) add(i - 1, -1);
      add(i, (i > 0 ? 1.0f : 0.0f) + (i + 1 < n ? 1.0f : 0.0f) + (i % 10 == 0 ? 1.0f : 0.0f));
      if (i + 1 < n) add(i + 1, -1);
      rows.push_back(static_cast<uint32_t>(columns.size()));
    }
  }
  CsrMatrix matrix() const { return {values, columns, rows}; }
  std::vector<float> values;
  std::vector<uint32_t> columns, rows;
};

Result run_scientific(Context& context, int64_t size, uint64_t seed) {
  const Springs springs(size);
  const Values b = uniform(context, size, seed, "load");
  const Solution cg = conjugate_gradient(context, springs.matrix(), b, 1e-5, 1000);
  const Solution descent = gradient_descent(context, springs.matrix(), b, 1e-3, 1000);
  const Eigenpairs pairs =
      lanczos(context, springs.matrix(), std::min<int64_t>(size, 40), std::min<int64_t>(size, 3), seed);
  return {named("x", cg.x),
          named("residual", cg.residual),
          named("iterations", cg.iterations),
          named("descent_residual", descent.residual),
          named("descent_iterations", descent.iterations),
          named("eigenvalues", pairs.values)};
}

// A tone of an eighth of the rate, and noise.
Values tone(Context& context, int64_t n, uint64_t seed) {
  Values x = uniform(context, n, seed, "noise", -0.5, 0.5);
  for (size_t i = 0; i < x.size(); ++i) x[i] += static_cast<float>(std::sin(M_PI / 4 * static_cast<double>(i % 8)));
  return x;
}

Result run_spectrum(Context& context, int64_t size, uint64_t seed) {
  constexpr double kRate = 8000;
  const int64_t n = std::max<int64_t>(2, size / 2 * 2);
  SpectrumOptions options;
  options.rate = kRate;
  options.periodic = true;
  const Values power = spectral_analysis(context, tone(context, n, seed), options);
  const auto peak = std::max_element(power.begin(), power.end()) - power.begin();
  return {named("peak_hz", static_cast<double>(peak) * kRate / static_cast<double>(n)), named("density", power)};
}

// A Gaussian low pass, its deviation a tenth of the rate.
Result run_filter(Context& context, int64_t size, uint64_t seed) {
  int64_t n = 1;
  while (n <= size / 2) n *= 2;
  Values response;
  for (int64_t k = 0; k <= n / 2; ++k) {
    const double f = static_cast<double>(k) / static_cast<double>(n) / 0.1;
    response.push_back(static_cast<float>(std::exp(-f * f / 2)));
    response.push_back(0);
  }
  const FilteredSignal r = signal_filter(context, tone(context, n, seed), Window::kHann, response);
  return {named("samples", n), named("signal", r.signal), named("power", r.power)};
}

// A field with a bump in its middle.
Result run_pde(Context& context, int64_t size, uint64_t seed) {
  const auto side = std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(static_cast<double>(size))));
  Values u = uniform(context, side * side, seed, "u", 0, 0.1);
  u[static_cast<size_t>(side / 2 * side + side / 2)] = 100;
  const View<const float, 3> field(u.data(), 1, side, side);
  PdeOptions options;
  options.steps = 100;
  const PdeResult heat = pde_solver(context, options, field);
  options.step = 0.3;
  const PdeResult fast = pde_solver(context, options, field);
  options.equation = Pde::kWave;
  const PdeResult wave = pde_solver(context, options, field);
  return {named("heat", heat.u), named("wave", wave.u), named("heat_unstable", !heat.warning.empty()),
          named("fast_heat_unstable", !fast.warning.empty()), named("wave_unstable", !wave.warning.empty())};
}

// Three columns, the second half the first, with gaps.
Result run_analysis(Context& context, int64_t size, uint64_t seed) {
  const int64_t rows = std::max<int64_t>(1, size / 3);
  Values x = random_init(context, InitKind::kNormal, 10, 2, seed, 0, rows * 3);
  for (size_t i = 0; i < x.size(); i += 3) x[i + 1] = (x[i] + x[i + 1]) / 2;
  for (size_t i = 2; i < x.size(); i += 30) x[i] = std::numeric_limits<float>::quiet_NaN();
  const DataAnalysis a = data_analysis(context, View<const float, 2>(x.data(), rows, 3), 16);
  Values count, mean, variance, median;
  for (const ColumnAnalysis& c : a.columns) {
    count.push_back(static_cast<float>(c.count)), mean.push_back(c.mean), variance.push_back(c.variance);
    median.push_back(c.percentiles[1]);
  }
  return {named("count", count),   named("mean", mean),           named("variance", variance),
          named("median", median), named("complete", a.complete), named("correlation", a.correlation)};
}

Result run_recommendation(Context& context, int64_t size, uint64_t seed) {
  constexpr int64_t kFeatures = 32, kUsers = 10;
  const int64_t count = std::max<int64_t>(1, size / kFeatures);
  const Values users = uniform(context, kUsers * kFeatures, seed, "users"),
               items = uniform(context, count * kFeatures, seed, "items");
  const std::vector<int32_t> asked = {3, 7};
  const Recommendation r =
      recommendation(context, View<const float, 2>(users.data(), kUsers, kFeatures),
                     View<const float, 2>(items.data(), count, kFeatures), asked, {}, std::min<int64_t>(count, 3));
  return {named("users", asked), named("items", r.items), named("scores", r.scores)};
}

// Vectors of very different lengths, so that the bound leaves many out.
Result run_search(Context& context, int64_t size, uint64_t seed) {
  constexpr int64_t kDim = 64;
  const int64_t rows = std::max<int64_t>(1, size / kDim);
  const Values x = uniform(context, rows * kDim, seed, "vectors"), query = uniform(context, kDim, seed, "query");
  const Values lengths = random_init(context, InitKind::kNormal, 0, 1, seed, 1, rows);
  std::vector<f16> half;
  for (size_t i = 0; i < x.size(); ++i) half.push_back(to_f16(x[i] * std::exp(lengths[i / kDim])));
  const VectorIndex index = vector_index(context, View<const f16, 2>(half.data(), rows, kDim));
  const Neighbours r = vector_search(context, index, query, std::min<int64_t>(rows, 5));
  return {named("rows", rows), named("candidates", r.candidates), named("ids", r.ids), named("scores", r.scores)};
}

Result run_bodies(Context& context, int64_t size, uint64_t seed) {
  const int64_t n = std::max<int64_t>(1, size / 3);
  const Values mass(static_cast<size_t>(n), 1 / static_cast<float>(n));
  Values pos = uniform(context, 3 * n, seed, "pos"), vel = uniform(context, 3 * n, seed, "vel", -0.5, 0.5);
  const EnergyDrift e = n_body(context, {1, 0.05}, mass, 0.001, 100, pos, vel);
  return {named("energy", e.after), named("energy_drift", e.drift), named("pos", pos), named("vel", vel)};
}

constexpr RecipeInfo kRecipes[] = {
    {"spectral_analysis", "window_apply -> fft_real -> spectral_power", 4096, run_spectrum},
    {"signal_filter", "window_apply -> fft_radix2 -> map_mul, map_add (response) -> ifft -> spectral_power", 4096,
     run_filter},
    {"pde_solver", "sim_heat_equation, sim_wave_equation or sim_stencil_2d / 3d x steps", 4096, run_pde},
    {"data_analysis",
     "map_compare + compact_mask -> reduce_mean, reduce_var, reduce_min, reduce_max -> reduce_histogram -> "
     "percentile_select -> reduce_pearson_pairwise",
     30000, run_analysis},
    {"recommendation", "(gather) -> dot_batched or matmul_batched -> topk_select per user -> map_div", 32000,
     run_recommendation},
    {"vector_search",
     "quantize_f16_to_i8 -> map_compare (bound) -> compact_mask -> dequantize_i8_to_f16 -> dot_batched -> topk_select",
     64000, run_search},
    {"n_body", "(forces) -> integrate_verlet -> (forces) -> integrate_verlet", 300, run_bodies},
    {"etl", "map_compare, compact_mask in one pass -> map_log -> reduce_mean -> map_div", 100000, run_etl},
    {"ml_inference",
     "(embedding) -> rms_norm -> attention_flash -> map_add -> rms_norm -> (up) -> map_silu -> (down) -> map_add", 4096,
     run_inference},
    {"random_init", "prng_uniform_f32 or prng_normal_f32 -> map_fma; prng_dropout_mask", 10000, run_init},
    {"transformer_block",
     "rms_norm -> attention_sdpa or attention_flash -> map_add -> rms_norm -> (gate, up) -> map_silu, map_mul -> "
     "(down) "
     "-> map_add",
     4096, run_block},
    {"training_step",
     "reduce_l2, grad_clip_norm or grad_clip_value -> opt_sgd, opt_sgd_momentum, opt_adam or opt_adamw; Adam with its "
     "clip in one pass",
     100000, run_training},
    {"diffusion", "(schedule) -> [group_norm -> attention_flash -> map_silu -> map_add] x steps", 4096, run_diffusion},
    {"scientific",
     "spmv_csr -> dot_batched, map_fma -> reduce_l2: conjugate gradients, gradient descent, Lanczos -> matvec", 200,
     run_scientific},
    {"describe_stats", "reduce_mean, reduce_var, reduce_argmin, reduce_argmax in one pass; reduce_histogram", 100000,
     run_statistics},
    {"pca_prep", "reduce_mean -> reduce_covariance_matrix", 100000, run_pca},
};

}  // namespace

std::span<const RecipeInfo> recipes() { return kRecipes; }

const RecipeInfo* find_recipe(std::string_view name) {
  const auto at =
      std::find_if(std::begin(kRecipes), std::end(kRecipes), [&](const RecipeInfo& r) { return r.name == name; });
  return at == std::end(kRecipes) ? nullptr : &*at;
}

}  // namespace graft
