// Every recipe on an example of its own, for `graft recipe run`.

#include "graft/recipes/recipes.h"

#include <algorithm>
#include <cmath>

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

constexpr RecipeInfo kRecipes[] = {
    {"etl", "map_compare -> compact_mask -> map_log -> reduce_mean -> map_div", 100000, run_etl},
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
     "reduce_l2, grad_clip_norm or grad_clip_value -> opt_sgd, opt_sgd_momentum, opt_adam or opt_adamw", 100000,
     run_training},
    {"diffusion", "(schedule) -> [group_norm -> attention_flash -> map_silu -> map_add] x steps", 4096, run_diffusion},
    {"scientific",
     "spmv_csr -> dot_batched, map_fma -> reduce_l2: conjugate gradients, gradient descent, Lanczos -> matvec", 200,
     run_scientific},
    {"describe_stats", "reduce_mean, reduce_var, reduce_argmin, reduce_argmax, reduce_histogram", 100000,
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
