// Float64 oracles of softmax, norms, losses, optimizers and the kernels fused of them (oracle_test.cc runs them).

#include "graft/kernels/oracle_test_util.h"

namespace graft::oracle {

double log_sum_exp(const Values& x) {
  double most = -kInf;
  for (const double v : x) most = v != v ? kNaN : std::max(most, v);  // NaN stays: no comparison with it holds
  return most + std::log(sum_of(count(x), [&](size_t i) { return std::exp(x[i] - most); }));
}
Values softmax_row(const Values& x) {
  Values y = x;
  const double all = log_sum_exp(x);
  for (double& v : y) v = std::exp(v - all);
  return y;
}

namespace {

// ---- softmax

void draw_logits(Draw& d, KernelCall& call) {
  const int64_t columns = d.size(2000, 1), rows = d.size(20);
  const double scale = d.one_of({3.0, 90.0, 0.01});
  const auto x = d.add(call, "x", {rows, columns}, scale);
  const bool masked = d.chance(0.4);
  for (size_t i = 0; i < x.size(); ++i) {
    if (masked && i % at(columns) > 0 && d.chance(0.5)) x[i] = static_cast<float>(-kInf);
  }
}
// Rows of only -inf, with +inf or with NaN come too.
void draw_broken_logits(Draw& d, KernelCall& call) {
  draw_logits(d, call);
  const auto x = call.inputs().at("x").data.as<float>();
  const int64_t columns = call.in_shape("x")[1], rows = call.in_shape("x")[0];
  for (int64_t r = 0; r < rows; ++r) {
    if (!d.chance(0.1)) continue;
    const auto value = static_cast<float>(d.one_of({-kInf, kInf, kNaN}));
    if (value < 0) {
      std::fill_n(x.begin() + r * columns, columns, value);
    } else {
      x[at(r * columns + d.range(0, columns - 1))] = value;
    }
  }
}
Values softmax_of(const KernelCall& call) { return rows_of(call, "x", softmax_row); }
double max_of(const Values& x) { return *std::max_element(x.begin(), x.end()); }

// ---- norms

void add_affine(Draw& d, KernelCall& call, int64_t n, bool beta) {
  d.add_uniform(call, "gamma", {n}, 0.5, 1.5);
  if (beta) d.add_uniform(call, "beta", {n}, -0.5, 0.5);
}
template <bool kBeta>
void draw_norm(Draw& d, KernelCall& call) {
  const int64_t columns = d.size(2000), rows = d.size(20);
  const float offset = kBeta ? d.one_of({0.3f, 0.3f, 50.0f}) : 0.3f;
  const bool constant = kBeta && d.chance(0.1);
  for (float& v : d.add(call, "x", {rows, columns}, 2)) v = constant ? 3 : v + offset;
  add_affine(d, call, columns, kBeta);
  if (d.chance(0.5)) set(call, "eps", d.one_of({1e-5, 1e-6, 1e-3}));
}
// x less its mean, over the deviation.
Values normed(const Values& x, double eps) {
  const double m = mean_of(x);
  const double v = sum_of(count(x), [&](size_t i) { return (x[i] - m) * (x[i] - m); }) / static_cast<double>(x.size());
  Values y = x;
  for (double& e : y) e = (e - m) / std::sqrt(v + eps);
  return y;
}
Values layer_norm_of(const KernelCall& call) {
  const Values gamma = in(call, "gamma"), beta = in(call, "beta");
  return rows_of(call, "x", [&](const Values& x) {
    Values y = normed(x, call.real("eps", 1e-5));
    for (size_t i = 0; i < y.size(); ++i) y[i] = y[i] * gamma[i] + beta[i];
    return y;
  });
}
// What an offset of x leaves of an f32 mean comes on top.
double norm_error(const KernelCall& call) {
  double most = 0;
  const Values x = in(call, "x");
  const int64_t columns = call.in_shape("x").back();
  for (int64_t i = 0; i < count(x); i += columns) most = std::max(most, std::fabs(mean_of(part(x, i, columns))));
  const double m = x.empty() ? 0 : mean_of(x);
  Values centred = x;
  for (double& v : centred) v -= m;
  return 4e-6 + 4e-7 * most / std::max(rms(centred), 1e-3);
}
Wants rms_norm_of(const KernelCall& call) {
  const Values gamma = in(call, "gamma");
  return {{"y",
           rows_of(call, "x",
                   [&](const Values& x) {
                     const double square = sum_of(count(x), [&](size_t i) { return x[i] * x[i]; });
                     const double root = std::sqrt(square / static_cast<double>(x.size()) + call.real("eps", 1e-6));
                     Values y = x;
                     for (size_t i = 0; i < y.size(); ++i) y[i] = y[i] / root * gamma[i];
                     return y;
                   }),
           4e-6, 1e-7}};
}

void draw_batch_norm(Draw& d, KernelCall& call) {
  const int64_t n = d.size(20, 2), channels = d.size(40), length = d.size(60, 1);
  for (float& v : d.add(call, "x", {n, channels, length}, 2)) v += 0.3f;
  add_affine(d, call, channels, true);
  d.add(call, "running_mean", {channels}, 0.3);
  d.add_uniform(call, "running_var", {channels}, 0.5, 2);
  set(call, "training", d.chance(0.6));
  if (d.chance(0.5)) set(call, "momentum", d.uniform(0, 1));
}
Wants batch_norm_of(const KernelCall& call) {
  const auto& s = call.in_shape("x");
  const Values x = in(call, "x"), gamma = in(call, "gamma"), beta = in(call, "beta");
  Values y = x, means = in(call, "running_mean"), variances = in(call, "running_var");
  const double m = call.real("momentum", 0.1), size = static_cast<double>(s[0] * s[2]);
  for (int64_t c = 0; c < s[1]; ++c) {
    const auto index = [&](size_t i) {
      return (static_cast<int64_t>(i) / s[2] * s[1] + c) * s[2] + static_cast<int64_t>(i) % s[2];
    };
    double mean = means[at(c)], variance = variances[at(c)];
    if (call.flag("training", true)) {
      mean = sum_of(s[0] * s[2], [&](size_t i) { return x[at(index(i))]; }) / size;
      variance = sum_of(s[0] * s[2], [&](size_t i) { return std::pow(x[at(index(i))] - mean, 2); }) / size;
      means[at(c)] = (1 - m) * means[at(c)] + m * mean;
      variances[at(c)] = (1 - m) * variances[at(c)] + m * variance * size / (size - 1);
    }
    for (size_t i = 0; i < at(s[0] * s[2]); ++i) {
      double& v = y[at(index(i))];
      v = (v - mean) / std::sqrt(variance + 1e-5) * gamma[at(c)] + beta[at(c)];
    }
  }
  return {{"y", y, 4e-6, 5e-6}, {"running_mean", means, 4e-6, 1e-6}, {"running_var", variances, 1e-5, 1e-6}};
}
void draw_group_norm(Draw& d, KernelCall& call) {
  const int64_t groups = d.range(1, 8), channels = groups * d.range(1, 8);
  for (float& v : d.add(call, "x", {d.size(8), channels, d.size(60, 1)}, 2)) v += 0.3f;
  add_affine(d, call, channels, true);
  set(call, "groups", groups);
}
Wants group_norm_of(const KernelCall& call) {
  const auto& s = call.in_shape("x");
  const Values x = in(call, "x"), gamma = in(call, "gamma"), beta = in(call, "beta");
  const int64_t size = s[1] / call.integer("groups", 32) * s[2];
  Values y;
  for (int64_t begin = 0; begin < count(x); begin += size) {
    const Values group = normed(part(x, begin, size), 1e-5);
    y.insert(y.end(), group.begin(), group.end());
  }
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t c = i / at(s[2]) % at(s[1]);
    y[i] = y[i] * gamma[c] + beta[c];
  }
  return {{"y", y, 4e-6, 5e-6}};
}

// ---- losses

void add_targets(Draw& d, KernelCall& call, int64_t rows, int64_t columns) {
  d.add(call, "logits", {rows, columns}, d.one_of({3.0, 90.0}));
  KernelTensor& t = call.add_input("targets", DType::kI32, {rows});
  const double ignored = d.one_of({0.0, 0.2, 1.0});
  for (int64_t i = 0; i < rows; ++i)
    t.data.as<int32_t>()[at(i)] = d.chance(ignored) ? -100 : static_cast<int32_t>(d.range(0, columns - 1));
}
void draw_cross_entropy(Draw& d, KernelCall& call) {
  const int64_t columns = d.size(1500, 1);
  add_targets(d, call, d.size(30), columns);
  if (d.chance(0.4)) d.add_uniform(call, "weight", {columns}, 0.2, 2);
}
// A loss for each row, of weights where they are given.
Values cross_entropies(const KernelCall& call) {
  const Values targets = in(call, "targets"), weight = call.has_input("weight") ? in(call, "weight") : Values();
  size_t row = 0;
  return rows_of(call, "logits", [&](const Values& x) {
    const double t = targets[row++];
    if (t < 0) return Values{0};
    return Values{(weight.empty() ? 1 : weight[static_cast<size_t>(t)]) * (log_sum_exp(x) - x[static_cast<size_t>(t)])};
  });
}
double loss_error(const KernelCall& call) { return 4e-6 + 2e-7 * max_abs(in(call, "logits")); }
Wants cross_entropy(const KernelCall& call) {
  const Values losses = cross_entropies(call), weight = call.has_input("weight") ? in(call, "weight") : Values();
  double weights = 0;
  for (const double t : in(call, "targets")) weights += t < 0 ? 0 : weight.empty() ? 1 : weight[static_cast<size_t>(t)];
  const double error = 2 * loss_error(call), sum = sum_of(losses);  // weights are below 2
  return {{"per_row", losses, 4e-6, error},
          {"sum", {sum}, 4e-6, error * static_cast<double>(losses.size())},
          {"mean", {weights > 0 ? sum / weights : kNaN}, 4e-6, error}};
}
void draw_predictions(Draw& d, KernelCall& call) {
  const int64_t n = d.size(20000);
  d.add(call, "pred", {n}), d.add(call, "target", {n});
  if (d.chance(0.5)) set(call, "delta", d.uniform(0.2, 3));
}
template <typename F>
Wants pointwise(const KernelCall& call, std::string_view mean, double rows, double relative, double absolute,
                F&& loss) {
  const Values p = in(call, "pred"), t = in(call, "target");
  const double sum = sum_of(count(p), [&](size_t i) { return loss(p[i], t[i]); });
  return {{"sum", {sum}, relative, absolute * std::max(1.0, rows)},
          {mean, {rows > 0 ? sum / rows : kNaN}, relative, absolute}};
}
double size_of(const KernelCall& call) { return static_cast<double>(in(call, "pred").size()); }
void draw_kl_div(Draw& d, KernelCall& call) {
  const Shape shape = {d.size(30), d.size(300, 1)};
  for (const auto* name : {"pred", "target"}) {
    const auto x = d.add_uniform(call, name, shape, 1e-4, 2 / static_cast<double>(shape[1]));
    for (float& v : x) v = d.chance(0.02) ? 0 : v;
  }
}
Wants kl_div(const KernelCall& call) {
  const auto term = [&](double p, double t) {
    return t > 0 ? t * (std::log(t) - std::log(std::max(p, call.real("eps", 1e-10)))) : 0;
  };
  const Values p = in(call, "pred"), t = in(call, "target");
  const double size = sum_of(count(p), [&](size_t i) { return std::fabs(term(p[i], t[i])); });
  const double rows = static_cast<double>(call.in_shape("pred")[0]);
  return pointwise(call, "batchmean", rows, 4e-6, rows > 0 ? (4e-6 * size + 1e-6) / rows : 0, term);
}
void draw_bce(Draw& d, KernelCall& call) {
  const int64_t n = d.size(20000);
  for (float& p : d.add_uniform(call, "pred", {n}, 0.001, 0.999))
    p = d.chance(0.02) ? d.one_of({0.0f, 1.0f, 1e-9f, 1e-4f}) : p;
  for (float& t : d.add_uniform(call, "target", {n}, 0, 1)) t = d.chance(0.8) ? std::round(t) : t;
}

// ---- optimizers

void draw_update(Draw& d, KernelCall& call) {
  const int64_t n = d.size(5000);
  d.add(call, "param", {n}), d.add(call, "grad", {n}, 0.5);
  if (d.chance(0.7)) set(call, "lr", d.one_of({0.1, 1e-3, 3e-4}));
}
void draw_momentum(Draw& d, KernelCall& call) {
  draw_update(d, call);
  d.add(call, "velocity", call.in_shape("param"), d.one_of({0.0, 0.2}));
  if (d.chance(0.5)) set(call, "momentum", d.uniform(0.5, 0.95));
}
void draw_adam(Draw& d, KernelCall& call) {
  const int64_t n = d.size(5000);
  const bool warm = d.chance(0.6);
  d.add(call, "param", {n}), d.add(call, "grad", {n}, 0.5), d.add(call, "m", {n}, warm ? 0.1 : 0);
  d.add_uniform(call, "v", {n}, warm ? 0.01 : 0, warm ? 0.3 : 0);
  set(call, "step", warm ? d.range(2, 1000) : 1);
  if (d.chance(0.5)) set(call, "weight_decay", d.uniform(0, 0.2));
}
Wants adam(const KernelCall& call, const Values& grad, double decay, double error) {
  Values p = in(call, "param"), m = in(call, "m"), v = in(call, "v");
  const double lr = call.real("lr", 1e-3), b1 = call.real("beta1", 0.9), b2 = call.real("beta2", 0.999);
  const bool corrected = call.flag("bias_correction", true);
  const double t = static_cast<double>(call.integer("step", 1));
  const double c1 = corrected ? 1 - std::pow(b1, t) : 1, c2 = corrected ? 1 - std::pow(b2, t) : 1;
  for (size_t i = 0; i < p.size(); ++i) {
    m[i] = b1 * m[i] + (1 - b1) * grad[i];
    v[i] = b2 * v[i] + (1 - b2) * grad[i] * grad[i];
    p[i] = p[i] * (1 - lr * decay) - lr * (m[i] / c1) / (std::sqrt(v[i] / c2) + call.real("eps", 1e-8));
  }
  return {{"param", p, 4e-7, error > 0 ? 3e-8 : 1e-8}, {"m", m, 4e-7 + error, 1e-8}, {"v", v, 4e-7 + 2 * error, 1e-9}};
}
Values clipped(Values g, double most, bool by_norm) {
  const double n = std::sqrt(sum_of(count(g), [&](size_t i) { return g[i] * g[i]; }));
  for (double& v : g) v = by_norm ? (n > most ? v * (most / n) : v) : std::clamp(v, -most, most);
  return g;
}
double length_of(const Values& g) {
  return std::sqrt(sum_of(count(g), [&](size_t i) { return g[i] * g[i]; }));
}

// ---- fused

void draw_layernorm_dropout(Draw& d, KernelCall& call) {
  draw_norm<true>(d, call);
  const Shape shape = call.in_shape("x");
  d.add(call, "residual", shape);
  set(call, "keep_prob", d.uniform(0.3, 1));
  if (d.chance(0.5)) return d.add_mask(call, "mask", shape, 0.7);
  set(call, "seed", static_cast<int64_t>(d.word())), set(call, "stream", d.range(0, 9));
}
Wants layernorm_dropout(const KernelCall& call) {
  Values y = layer_norm_of(call);
  const double keep = call.real("keep_prob", 0.9);
  const Values residual = in(call, "residual");
  const auto words = philox_words(call.natural("seed", 0), call.natural("stream", 0), 0, count(y));
  const Values mask = call.has_input("mask") ? in(call, "mask") : Values();
  for (size_t i = 0; i < y.size(); ++i) {
    const bool kept =
        mask.empty() ? (words[i] >> 8) * 0x1p-24 < static_cast<double>(static_cast<float>(keep)) : mask[i] != 0;
    y[i] = (kept ? y[i] / keep : 0) + residual[i];
  }
  return {{"y", y, 4e-6, norm_error(call) / keep}};
}
constexpr Oracle kTrainingOracles[] = {
    {"softmax_stable", draw_broken_logits,
     [](const KernelCall& c) -> Wants {
       return {{"y", softmax_of(c), 4e-6, 1e-9}};
     }},
    {"log_softmax", draw_broken_logits,
     [](const KernelCall& c) -> Wants {
       const auto row = [](Values x) {
         const double all = log_sum_exp(x);
         for (double& v : x) v -= all;
         return x;
       };
       return {{"y", rows_of(c, "x", row), 1e-6, 2e-6 + 1.2e-7 * max_abs(in(c, "x"))}};
     }},
    {"softmax_online", draw_logits,
     [](const KernelCall& c) -> Wants {
       const auto most = [](const Values& x) { return Values{max_of(x)}; };
       const auto sum = [](const Values& x) {
         return Values{sum_of(count(x), [&](size_t i) { return std::exp(x[i] - max_of(x)); })};
       };
       return {{"y", softmax_of(c), 4e-6, 1e-9},
               {"row_max", rows_of(c, "x", most)},
               {"row_sum", rows_of(c, "x", sum), 4e-6}};
     }},

    {"layer_norm", draw_norm<true>,
     [](const KernelCall& c) -> Wants {
       return {{"y", layer_norm_of(c), 4e-6, norm_error(c)}};
     }},
    {"batch_norm", draw_batch_norm, batch_norm_of},
    {"rms_norm", draw_norm<false>, rms_norm_of},
    {"group_norm", draw_group_norm, group_norm_of},

    {"loss_cross_entropy", draw_cross_entropy, cross_entropy},
    {"loss_mse", draw_predictions,
     [](const KernelCall& c) {
       return pointwise(c, "mean", size_of(c), 4e-6, 1e-12, [](double p, double t) { return (p - t) * (p - t); });
     }},
    {"loss_mae", draw_predictions,
     [](const KernelCall& c) {
       return pointwise(c, "mean", size_of(c), 4e-6, 1e-12, [](double p, double t) { return std::fabs(p - t); });
     }},
    {"loss_huber", draw_predictions,
     [](const KernelCall& c) {
       const double delta = c.real("delta", 1);
       return pointwise(c, "mean", size_of(c), 4e-6, 1e-12, [&](double p, double t) {
         const double d = std::fabs(p - t);
         return d < delta ? d * d / 2 : delta * (d - delta / 2);
       });
     }},
    {"loss_kl_div", draw_kl_div, kl_div},
    {"loss_bce", draw_bce,
     [](const KernelCall& c) {
       return pointwise(c, "mean", size_of(c), 4e-6, 2e-7, [](double p, double t) {
         p = std::clamp(p, static_cast<double>(1e-7f), 1 - 0x1p-23);
         return -(t * std::log(p) + (1 - t) * std::log1p(-p));
       });
     }},

    {"opt_sgd", draw_update,
     [](const KernelCall& c) -> Wants {
       Values p = in(c, "param");
       const Values g = in(c, "grad");
       for (size_t i = 0; i < p.size(); ++i) p[i] -= c.real("lr", 1e-3) * g[i];
       return {{"param", p, 2e-7, 2e-7}};
     }},
    {"opt_sgd_momentum", draw_momentum,
     [](const KernelCall& c) -> Wants {
       Values p = in(c, "param"), v = in(c, "velocity");
       const Values g = in(c, "grad");
       for (size_t i = 0; i < p.size(); ++i) {
         v[i] = c.real("momentum", 0.9) * v[i] + g[i];
         p[i] -= c.real("lr", 1e-3) * v[i];
       }
       return {{"param", p, 2e-7, 3e-7}, {"velocity", v, 2e-7, 3e-7}};
     }},
    {"opt_adam", draw_adam, [](const KernelCall& c) { return adam(c, in(c, "grad"), 0, 0); }},
    {"opt_adamw", draw_adam,
     [](const KernelCall& c) { return adam(c, in(c, "grad"), c.real("weight_decay", 0.01), 0); }},
    {"grad_clip_norm",
     [](Draw& d, KernelCall& call) {
       d.add(call, "grad", {d.size(20000)}, d.one_of({0.5, 0.0, 1e-3}));
       set(call, "max_norm", d.one_of({0.5, 1e6, 1.0, 0.0}));
     },
     [](const KernelCall& c) -> Wants {
       const Values g = in(c, "grad");
       return {{"grad", clipped(g, c.real("max_norm", 1), true), 3e-6}, {"norm", {length_of(g)}, 2e-6}};
     }},
    {"grad_clip_value",
     [](Draw& d, KernelCall& call) {
       d.add(call, "grad", {d.size(20000)});
       set(call, "max_value", d.one_of({0.5, 0.0, 1.5}));
     },
     [](const KernelCall& c) -> Wants {
       return {{"grad", clipped(in(c, "grad"), c.real("max_value", 1), false)}};
     }},

    {"fused_softmax_cross_entropy",
     [](Draw& d, KernelCall& call) {
       const int64_t columns = d.size(1500, 1);
       add_targets(d, call, d.size(30), columns);
       if (d.chance(0.5)) set(call, "grad_scale", d.uniform(0.01, 1));
     },
     [](const KernelCall& c) -> Wants {
       const Values targets = in(c, "targets");
       const double scale = c.real("grad_scale", 1);
       size_t row = 0;
       const Values grad = rows_of(c, "logits", [&](const Values& x) {
         Values p = softmax_row(x);
         const double t = targets[row++];
         if (t >= 0) p[static_cast<size_t>(t)] -= 1;
         for (double& v : p) v *= t < 0 ? 0 : scale;
         return p;
       });
       return {{"loss", cross_entropies(c), 2e-6, loss_error(c)}, {"grad", grad, 4e-6, 1e-6 * scale}};
     }},
    {"fused_layernorm_dropout_residual", draw_layernorm_dropout, layernorm_dropout},
    {"fused_adam_clip_update",
     [](Draw& d, KernelCall& call) {
       draw_adam(d, call);
       set(call, "clip", d.one_of({0.5, 1.0, 1e6}));
       call.set_parameter("clip_mode", d.one_of({"value", "norm"}));
       set(call, "bias_correction", d.chance(0.7));
     },
     [](const KernelCall& c) {
       const bool by_norm = c.word("clip_mode", "value") == "norm";
       const Values g = in(c, "grad");
       Wants wants = adam(c, clipped(g, c.real("clip", 1), by_norm), c.real("weight_decay", 0.01), 2.6e-6);
       if (by_norm) wants.push_back({"norm", {length_of(g)}, 2e-6});
       return wants;
     }},
};

}  // namespace

std::span<const Oracle> training_oracles() { return kTrainingOracles; }

}  // namespace graft::oracle
