#include "graft/recipes/recipes.h"

#include <functional>

#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "graft/recipes/test_support.h"

namespace graft {
namespace {

using test::Call;
using test::random;
using test::Values;

TEST(Recipes, EtlIsItsKernels) {
  test::TestContext t(2);
  Values x = random(10000, 1, 2);
  x[17] = std::numeric_limits<float>::quiet_NaN();
  const EtlResult got = etl(t.context, x, {});
  const auto mask =
      Call(t.context, "map_compare").in("a", x).in("b", Values(x.size())).set("op", "gt").out<uint8_t>("mask");
  const Values kept = Call(t.context, "compact_mask").in("x", x).in("mask", mask).out("y");
  const Values logs = Call(t.context, "map_log").in("x", kept).out("y");
  const Values mean = Call(t.context, "reduce_mean").in("x", logs).out("y");
  EXPECT_EQ(got.mean, mean[0]);
  EXPECT_EQ(got.values, Call(t.context, "map_div").in("a", logs).in("b", Values(logs.size(), mean[0])).out("y"));
  EXPECT_EQ(got.dropped, static_cast<int64_t>(x.size() - kept.size()));
  const EtlResult none = etl(t.context, Values{-1, -2}, {});
  EXPECT_TRUE(none.values.empty() && std::isnan(none.mean) && none.dropped == 2);
  EXPECT_THROW(etl(t.context, x, {.log = false, .low = 1, .high = 0}), Error);
}

TEST(Recipes, StatisticsAreTheirKernels) {
  test::TestContext t(2);
  const Values x = random(12345, 2);
  const Statistics s = describe_stats(t.context, x, 32);
  const auto number = [&](std::string_view kernel) { return Call(t.context, kernel).in("x", x).out("y")[0]; };
  EXPECT_EQ(s.mean, number("reduce_mean"));
  EXPECT_EQ(s.variance, number("reduce_var"));
  EXPECT_EQ(s.min.value, number("reduce_min"));
  EXPECT_EQ(s.max.value, number("reduce_max"));
  EXPECT_EQ(x[static_cast<size_t>(s.max.index)], s.max.value);
  EXPECT_EQ(x[static_cast<size_t>(s.min.index)], s.min.value);
  const Values first = Call(t.context, "reduce_argmin").in("x", x).out("value");
  EXPECT_EQ(s.min.value, first[0]);
  const Moments m = reduce_moments(t.context, std::span(x).first(4097));  // a last block of one
  const Values some(x.begin(), x.begin() + 4097);
  EXPECT_EQ(m.variance, Call(t.context, "reduce_var").in("x", some).out("y")[0]);
  EXPECT_EQ(m.mean, Call(t.context, "reduce_mean").in("x", some).out("y")[0]);
  Values broken = x;
  broken[7000] = broken[12000] = std::numeric_limits<float>::quiet_NaN();
  const Statistics nan = describe_stats(t.context, broken);
  EXPECT_TRUE(std::isnan(nan.mean) && std::isnan(nan.variance) && std::isnan(nan.min.value));
  EXPECT_EQ(nan.min.index, 7000);
  EXPECT_EQ(nan.max.index, 7000);
  uint64_t all = 0;
  for (const uint32_t count : s.histogram) all += count;
  EXPECT_EQ(all, x.size());
  EXPECT_TRUE(describe_stats(t.context, Values(5, 2.0f)).histogram.empty());
  EXPECT_THROW(describe_stats(t.context, {}), Error);

  const PcaInput p = pca_prep(t.context, View<const float, 2>(x.data(), 2469, 5));
  EXPECT_EQ(p.covariance, Call(t.context, "reduce_covariance_matrix").in("x", x, {2469, 5}).out("c"));
  for (size_t c = 0; c < 5; ++c) {
    Values column;
    for (size_t i = c; i < x.size(); i += 5) column.push_back(x[i]);
    EXPECT_EQ(p.mean[c], Call(t.context, "reduce_mean").in("x", column).out("y")[0]);
  }
}

TEST(Recipes, InitialValuesDependOnSeedStreamAndIndexAlone) {
  test::TestContext one(1), three(3);
  const auto draw = [](Context& context, int64_t n) { return random_init(context, InitKind::kNormal, 1, 2, 7, 9, n); };
  const Values all = draw(one.context, 100001), some = draw(three.context, 1000);
  EXPECT_EQ(some, Values(all.begin(), all.begin() + 1000));
  const Values z = Call(one.context, "prng_normal_f32")
                       .set("n", "1000")
                       .set("seed", "7")
                       .set("stream", "9")
                       .set("first", "0")
                       .out("y");
  EXPECT_EQ(some,
            Call(one.context, "map_fma").in("a", z).in("b", Values(1000, 2.0f)).in("c", Values(1000, 1.0f)).out("y"));
  double kept = 0;
  for (const float v : random_init(one.context, InitKind::kBernoulli, 0.9, 0, 1, 2, 10000))
    kept += static_cast<double>(v);
  EXPECT_NEAR(kept / 10000, 0.9, 0.015);  // five deviations
}

struct Layer {
  explicit Layer(bool gated)
      : norm(random(24, 1)),
        q(random(24 * 24, 2, 0.3)),
        k(random(24 * 12, 3, 0.3)),
        v(random(24 * 12, 4)),
        o(random(24 * 24, 5)),
        gate(gated ? random(24 * 40, 6) : Values{}),
        up(random(24 * 40, 7)),
        down(random(40 * 24, 8)) {
    w.hidden = 24, w.heads = 4, w.kv_heads = 2, w.inner = 40;
    w.attention_norm = w.mlp_norm = norm;
    w.q = q, w.k = k, w.v = v, w.o = o, w.gate = gate, w.up = up, w.down = down;
  }
  Values norm, q, k, v, o, gate, up, down;
  BlockWeights w;
};

// The layer by single kernels. Heads are copied to [1, H, L, D], and keys to each head that shares them where that is needed.
Values layer_by_kernels(Context& context, const Layer& l, const Values& x, int64_t rows, bool flash) {
  const auto norm = [&](const Values& h) {
    return Call(context, "rms_norm").in("x", h, {rows, 24}).in("gamma", l.norm).out("y");
  };
  const auto multiply = [&](const Values& h, const Values& w, int64_t in, int64_t out) {
    return Call(context, "matmul_batched").in("a", h, {1, rows, in}).in("b", w, {1, in, out}).out("c");
  };
  const auto by_head = [&](const Values& h, int64_t heads) {
    Values y(h.size());
    for (int64_t i = 0; i < static_cast<int64_t>(h.size()); ++i) {
      const int64_t e = i % 6, head = i / 6 % heads, row = i / 6 / heads;
      y[static_cast<size_t>((head * rows + row) * 6 + e)] = h[static_cast<size_t>(i)];
    }
    return y;
  };
  const auto halves = [](const Values& h) {
    std::vector<f16> y;
    for (const float value : h) y.push_back(to_f16(value));
    return y;
  };
  const auto repeat = [&](const Values& h) {  // heads 0, 0, 1, 1
    Values y;
    for (int64_t head = 0; head < 4; ++head) {
      y.insert(y.end(), h.begin() + head / 2 * rows * 6, h.begin() + (head / 2 + 1) * rows * 6);
    }
    return y;
  };
  const Values h = norm(x);
  const Values q = by_head(multiply(h, l.q, 24, 24), 4), k = repeat(by_head(multiply(h, l.k, 24, 12), 2)),
               v = repeat(by_head(multiply(h, l.v, 24, 12), 2));
  const std::vector<int64_t> shape = {1, 4, rows, 6};
  Values o;
  if (flash) {
    o = Call(context, "attention_flash")
            .in("q", halves(q), shape)
            .in("k", halves(k), shape)
            .in("v", halves(v), shape)
            .set("causal", "true")
            .out("o");
  } else {
    o = Call(context, "attention_sdpa")
            .in("q", q, shape)
            .in("k", k, shape)
            .in("v", v, shape)
            .set("causal", "true")
            .out("o");
  }
  Values rows_of_o(o.size());
  for (int64_t i = 0; i < static_cast<int64_t>(o.size()); ++i) {
    const int64_t e = i % 6, row = i / 6 % rows, head = i / 6 / rows;
    rows_of_o[static_cast<size_t>((row * 4 + head) * 6 + e)] = o[static_cast<size_t>(i)];
  }
  const Values y = Call(context, "map_add").in("a", x).in("b", multiply(rows_of_o, l.o, 24, 24)).out("y");
  const Values n = norm(y);
  Values up = multiply(n, l.up, 24, 40);
  if (l.gate.empty()) {
    up = Call(context, "map_silu").in("x", up).out("y");
  } else {
    const Values gate = Call(context, "map_silu").in("x", multiply(n, l.gate, 24, 40)).out("y");
    up = Call(context, "map_mul").in("a", gate).in("b", up).out("y");
  }
  return Call(context, "map_add").in("a", y).in("b", multiply(up, l.down, 40, 24)).out("y");
}

TEST(Recipes, LayersAreTheirKernels) {
  test::TestContext t(2);
  const Layer gated(true), plain(false);
  for (const int64_t rows : {1, 70}) {
    const Values x = random(rows * 24, 11);
    EXPECT_EQ(transformer_block(t.context, gated.w, View<const float, 2>(x.data(), rows, 24)),
              layer_by_kernels(t.context, gated, x, rows, false));
  }
  constexpr int64_t kLong = 2050;  // from 2048 rows on, attention reads f16
  const Values x = random(kLong * 24, 12);
  EXPECT_EQ(transformer_block(t.context, gated.w, View<const float, 2>(x.data(), kLong, 24)),
            layer_by_kernels(t.context, gated, x, kLong, true));
  const Values embedding = random(10 * 24, 13);
  const std::vector<int32_t> tokens = {3, 9, 0, 3};
  Values rows;
  for (const int32_t token : tokens)
    rows.insert(rows.end(), embedding.begin() + token * 24, embedding.begin() + (token + 1) * 24);
  EXPECT_EQ(ml_inference(t.context, plain.w, View<const float, 2>(embedding.data(), 10, 24), tokens),
            layer_by_kernels(t.context, plain, rows, 4, true));
  EXPECT_THROW(
      ml_inference(t.context, plain.w, View<const float, 2>(embedding.data(), 10, 24), std::vector<int32_t>{10}),
      Error);
  EXPECT_THROW(transformer_block(t.context, plain.w, View<const float, 2>(x.data(), 4, 24)), Error);  // no gate
  BlockWeights wrong = gated.w;
  wrong.down = wrong.up.first(7);
  EXPECT_THROW(transformer_block(t.context, wrong, View<const float, 2>(x.data(), 4, 24)), Error);
}

TEST(Recipes, DiffusionStepIsItsKernels) {
  test::TestContext t(2);
  constexpr int64_t kChannels = 6, kLength = 50;
  const Values x = random(kChannels * kLength, 3), schedule = {0.25f};
  const Values norm = Call(t.context, "group_norm")
                          .in("x", x, {1, kChannels, kLength})
                          .in("gamma", Values(6, 1.0f))
                          .in("beta", Values(6))
                          .set("groups", "3")
                          .out("y");
  const Values turned = Call(t.context, "transpose_2d").in("x", norm, {kChannels, kLength}).out("y");
  std::vector<f16> half;
  for (const float v : turned) half.push_back(to_f16(v));
  const std::vector<int64_t> shape = {1, 1, kLength, kChannels};
  const Values o =
      Call(t.context, "attention_flash").in("q", half, shape).in("k", half, shape).in("v", half, shape).out("o");
  Values h = Call(t.context, "transpose_2d")
                 .in("x", Call(t.context, "map_silu").in("x", o).out("y"), {kLength, kChannels})
                 .out("y");
  for (float& v : h) v *= -0.25f;
  EXPECT_EQ(diffusion(t.context, View<const float, 2>(x.data(), kChannels, kLength), 3, schedule),
            Call(t.context, "map_add").in("a", x).in("b", h).out("y"));
  EXPECT_EQ(diffusion(t.context, View<const float, 2>(x.data(), kChannels, kLength), 3, {}), x);
  EXPECT_THROW(diffusion(t.context, View<const float, 2>(x.data(), kChannels, kLength), 4, schedule), Error);
}

TEST(Recipes, TrainingStepsAreTheirKernels) {
  test::TestContext t(2);
  const Values grad = random(5000, 4), start = random(5000, 5);
  const auto step = [&](Clip clip, double at, Optimizer optimizer, float* norm) {
    Values param = start, m(param.size()), v(param.size());
    TrainingOptions options;
    options.clip = clip, options.clip_at = at, options.optimizer = optimizer;
    options.step.lr = 0.01;
    *norm = training_step(t.context, options, grad, {param, m, v});
    return param;
  };
  float norm = 0;
  EXPECT_EQ(step(Clip::kNone, 0, Optimizer::kSgd, &norm),
            Call(t.context, "opt_sgd").in("param", start).in("grad", grad).set("lr", "0.01").out("param"));
  EXPECT_EQ(norm, Call(t.context, "reduce_l2").in("x", grad).out("y")[0]);
  const Values bounded = Call(t.context, "grad_clip_value").in("grad", grad).set("max_value", "0.5").out("grad");
  EXPECT_EQ(step(Clip::kValue, 0.5, Optimizer::kSgd, &norm),
            Call(t.context, "opt_sgd").in("param", start).in("grad", bounded).set("lr", "0.01").out("param"));
  const Values clipped = Call(t.context, "grad_clip_norm").in("grad", grad).set("max_norm", "1").out("grad");
  EXPECT_EQ(step(Clip::kNorm, 1, Optimizer::kSgd, &norm),
            Call(t.context, "opt_sgd").in("param", start).in("grad", clipped).set("lr", "0.01").out("param"));
  Values adamw = start, m(start.size()), v(start.size());
  TrainingOptions options;
  options.step.lr = 0.01, options.step.t = 1;
  training_step(t.context, options, grad, {adamw, m, v});  // in one pass
  EXPECT_EQ(adamw, Call(t.context, "opt_adamw")
                       .in("param", start)
                       .in("grad", clipped)
                       .in("m", Values(start.size()))
                       .in("v", Values(start.size()))
                       .set("lr", "0.01")
                       .set("weight_decay", fmt::format("{}", options.step.weight_decay))
                       .out("param"));
  // The first step of Adam moves each parameter by lr against its gradient's sign.
  const Values adam = step(Clip::kNorm, 1, Optimizer::kAdam, &norm);
  for (size_t i = 0; i < adam.size(); ++i) {
    if (std::fabs(grad[i]) <= 0.01f) continue;  // epsilon shows in smaller ones
    ASSERT_NEAR(adam[i] - start[i], grad[i] > 0 ? -0.01 : 0.01, 1e-5) << i;
  }
  Values param = start;
  EXPECT_THROW(training_step(t.context, {}, grad, {param, {}, {}}), Error);  // AdamW without moments
}

// The second difference of a path with its ends held: eigenvalues 2 - 2 cos(pi k / (n + 1)).
struct Path {
  explicit Path(uint32_t n) {
    rows.push_back(0);
    for (uint32_t i = 0; i < n; ++i) {
      if (i > 0) columns.push_back(i - 1), values.push_back(-1);
      columns.push_back(i), values.push_back(2);
      if (i + 1 < n) columns.push_back(i + 1), values.push_back(-1);
      rows.push_back(static_cast<uint32_t>(columns.size()));
    }
  }
  CsrMatrix matrix() const { return {values, columns, rows}; }
  Values values;
  std::vector<uint32_t> columns, rows;
};

TEST(Recipes, SolversFindTheSolution) {
  test::TestContext t(2);
  const Path path(50);
  const Values want = random(50, 6);
  Values b(50);
  spmv_csr(t.context, path.matrix(), want, b);
  const Solution cg = conjugate_gradient(t.context, path.matrix(), b, 1e-6, 200);
  EXPECT_LE(cg.iterations, 60);  // n steps, and a few for rounding
  const Solution descent = gradient_descent(t.context, path.matrix(), b, 1e-3, 20000);
  double length = 0;
  for (const float v : b) length += static_cast<double>(v) * static_cast<double>(v);
  EXPECT_LE(descent.residual, 1e-3 * std::sqrt(length));
  // Condition number 1,050: a residual of 1e-6 leaves errors of 1e-3 at most.
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(cg.x[i], want[i], 1e-3);
  EXPECT_EQ(conjugate_gradient(t.context, path.matrix(), Values(50), 1e-6, 200).iterations, 0);
  EXPECT_THROW(conjugate_gradient(t.context, path.matrix(), Values(49), 1e-6, 200), Error);
  Path broken(5);
  broken.columns[0] = 5;
  EXPECT_THROW(conjugate_gradient(t.context, broken.matrix(), Values(5), 1e-6, 200), Error);
}

TEST(Recipes, LanczosFindsTheLargestEigenpairs) {
  test::TestContext t(2);
  constexpr int64_t kN = 40;
  const Path path(kN);
  const Eigenpairs pairs = lanczos(t.context, path.matrix(), kN, 3, 1);
  ASSERT_EQ(pairs.values.size(), 3u);
  for (int64_t k = 0; k < 3; ++k) {
    const double want = 2 - 2 * std::cos(M_PI * static_cast<double>(kN - k) / (kN + 1));
    EXPECT_NEAR(pairs.values[static_cast<size_t>(k)], want, 1e-5);
    const Values v(pairs.vectors.begin() + k * kN, pairs.vectors.begin() + (k + 1) * kN);
    Values av(kN);
    spmv_csr(t.context, path.matrix(), v, av);
    for (size_t i = 0; i < kN; ++i) EXPECT_NEAR(av[i], want * static_cast<double>(v[i]), 1e-4);
  }
  EXPECT_THROW(lanczos(t.context, path.matrix(), 2, 3, 1), Error);
}

TEST(Recipes, JoinedPassesMoveFewerBytes) {
  test::TestContext t(1);
  int64_t joined = 0;
  for (const RecipeInfo& r : recipes()) {
    const auto saving = recipe_saving(t.context, r.name, 5000, 1);
    if (!saving) continue;
    ++joined;
    EXPECT_LT(saving->bytes, saving->bytes_apart) << r.name;
    EXPECT_GT(saving->ns, 0) << r.name;
    EXPECT_GT(saving->ns_apart, 0) << r.name;
  }
  EXPECT_EQ(joined, 5);
}

TEST(Recipes, EveryExampleRunsAtAnySizeAndOnAnyThreads) {
  for (const RecipeInfo& r : recipes()) {
    EXPECT_EQ(find_recipe(r.name), &r);
    for (const int64_t size : {int64_t{1}, int64_t{77}, r.size}) {
      std::vector<std::vector<double>> first;
      for (const int threads : {1, 3}) {
        test::TestContext t(threads);
        std::vector<std::vector<double>> values;
        for (const RecipeValue& v : r.run(t.context, size, 5)) values.push_back(v.values);
        EXPECT_FALSE(values.empty());
        if (threads == 1) {
          first = values;
        } else {
          const auto text = [](const auto& x) { return fmt::format("{}", fmt::join(x, " ")); };  // NaN is NaN
          for (size_t i = 0; i < values.size(); ++i)
            EXPECT_EQ(text(values[i]), text(first[i])) << r.name << " of " << size;
        }
      }
    }
  }
  EXPECT_EQ(find_recipe("nothing"), nullptr);
}

}  // namespace
}  // namespace graft
