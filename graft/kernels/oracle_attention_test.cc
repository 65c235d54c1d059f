// Float64 oracles of attention and positions (oracle_test.cc runs them).

#include <tuple>

#include "graft/kernels/oracle_test_util.h"

namespace graft::oracle {
namespace {

// ---- attention and positions

enum class Heads { kEqual, kOne, kSome };
template <bool kHalf, Heads kHeads>
void draw_attention(Draw& d, KernelCall& call) {
  const int64_t kv = kHeads == Heads::kOne ? 1 : d.range(1, 3),
                heads = kHeads == Heads::kEqual ? kv : kv * d.range(1, 4);
  const int64_t batch = d.range(1, 2), features = d.one_of<int64_t>({1, 7, 8, 16, 33, 64, 80, 128});
  const int64_t queries = d.size(140, 1), keys = d.chance(0.5) ? queries : d.size(200, 1);
  for (const auto& [name, rows, count] : {std::tuple{"q", queries, heads}, {"k", keys, kv}, {"v", keys, kv}}) {
    if (kHalf) {
      d.add_half(call, name, {batch, count, rows, features});
    } else {
      d.add(call, name, {batch, count, rows, features});
    }
  }
  set(call, "causal", d.chance(0.5));
  if (d.chance(0.3)) set(call, "scale", d.uniform(0.05, 0.5));
}
double scale_of(const KernelCall& call) {
  return call.real("scale", 1 / std::sqrt(static_cast<double>(call.in_shape("q").back())));
}
// Of every row of the last axis the Euclidean length, and of these the largest.
double longest(const KernelCall& call, std::string_view name) {
  double most = 0;
  rows_of(call, name, [&](const Values& x) {
    most = std::max(most, std::sqrt(sum_of(count(x), [&](size_t i) { return x[i] * x[i]; })));
    return Values();
  });
  return most;
}
Wants attention(const KernelCall& call) {
  const auto &qs = call.in_shape("q"), &ks = call.in_shape("k");
  const Values q = in(call, "q"), k = in(call, "k"), v = in(call, "v");
  const int64_t queries = qs[2], keys = ks[2], features = qs[3];
  Values o, lse;
  for (int64_t row = 0; row < qs[0] * qs[1] * queries; ++row) {
    const int64_t i = row % queries, head = row / queries % qs[1], batch = row / queries / qs[1];
    const int64_t base = (batch * ks[1] + head / (qs[1] / ks[1])) * keys;
    const int64_t seen = call.flag("causal", false) ? std::clamp<int64_t>(i + keys - queries + 1, 0, keys) : keys;
    Values scores;
    for (int64_t j = 0; j < seen; ++j) {
      double s = 0;
      for (int64_t e = 0; e < features; ++e) s += q[at(row * features + e)] * k[at((base + j) * features + e)];
      scores.push_back(s * scale_of(call));
    }
    const Values p = softmax_row(scores);
    for (int64_t e = 0; e < features; ++e) {
      double sum = 0;
      for (int64_t j = 0; j < seen; ++j) sum += p[at(j)] * v[at((base + j) * features + e)];
      o.push_back(sum);
    }
    lse.push_back(seen == 0 ? -kInf : log_sum_exp(scores));
  }
  if (call.inputs().at("q").dtype == DType::kF16) return {{"o", o, 2e-3, 5e-4 * rms(v)}, {"lse", lse, 5e-4, 1e-3}};
  const double products = longest(call, "q") * longest(call, "k") * std::fabs(scale_of(call));
  return {{"o", o, 0, max_abs(v) * (2e-6 + 1e-6 * products)}, {"lse", lse, 2e-6, 4e-6 + 1e-6 * products}};
}
void draw_one_head(Draw& d, KernelCall& call) {
  const int64_t features = d.one_of<int64_t>({1, 7, 8, 16, 33, 64, 128}), keys = d.size(200, 1);
  d.add(call, "q", {1, 1, d.size(140, 1), features});
  d.add(call, "k", {1, 1, keys, features}), d.add(call, "v", {1, 1, keys, features});
}

void draw_precompute(Draw& d, KernelCall& call) {
  set(call, "length", d.size(200)), set(call, "dim", 2 * d.range(2, 64));
  set(call, "start", d.one_of<int64_t>({0, 1, 1000, 100000}));
  if (d.chance(0.5)) set(call, "base", d.one_of({500.0, 1e6}));
  if (d.chance(0.6)) {
    call.set_parameter("scaling", d.one_of({"ntk", "linear", "none"}));
    set(call, "factor", d.uniform(1, 8));
  }
}
Wants angles(const KernelCall& call) {
  const int64_t length = call.integer("length", 0), dim = call.integer("dim", 0);
  const std::string scaling = call.word("scaling", "none");
  const double factor = call.real("factor", 1), d = static_cast<double>(dim);
  const double base = call.real("base", 10000) * (scaling == "ntk" ? std::pow(factor, d / (d - 2)) : 1);
  Values c, s;
  for (int64_t p = 0; p < length; ++p) {
    for (int64_t j = 0; j < dim / 2; ++j) {
      const double position = static_cast<double>(call.integer("start", 0) + p) / (scaling == "linear" ? factor : 1);
      const double angle = position * std::pow(base, -2 * static_cast<double>(j) / d);
      c.push_back(std::cos(angle)), s.push_back(std::sin(angle));
    }
  }
  return {{"cos", c, 0, 2e-7}, {"sin", s, 0, 2e-7}};
}
void add_turns(Draw& d, KernelCall& call, int64_t length, int64_t half) {
  const auto c = d.add(call, "cos", {length, half}), s = d.add(call, "sin", {length, half});
  for (size_t i = 0; i < c.size(); ++i) {
    const double angle = d.uniform(0, 7);
    c[i] = static_cast<float>(std::cos(angle)), s[i] = static_cast<float>(std::sin(angle));
  }
}
// Row [d] of x turned by row p of the tables.
Values turned(const KernelCall& call, const Values& x, int64_t p, bool interleaved) {
  const int64_t half = count(x) / 2;
  const Values c = in(call, "cos"), s = in(call, "sin");
  Values y = x;
  for (int64_t j = 0; j < half; ++j) {
    const size_t a = at(interleaved ? 2 * j : j), b = at(interleaved ? 2 * j + 1 : j + half), t = at(p * half + j);
    y[a] = x[a] * c[t] - x[b] * s[t];
    y[b] = x[a] * s[t] + x[b] * c[t];
  }
  return y;
}
void draw_apply(Draw& d, KernelCall& call) {
  const int64_t length = d.size(40), half = d.range(1, 40);
  d.add(call, "x", {d.range(1, 3), length, d.range(1, 4), 2 * half});
  add_turns(d, call, length, half);
  if (d.chance(0.6)) call.set_parameter("layout", d.one_of({"half", "interleaved"}));
}
Wants applied(const KernelCall& call) {
  const auto& s = call.in_shape("x");
  int64_t row = 0;
  return {{"y",
           rows_of(call, "x",
                   [&](const Values& x) {
                     const int64_t p = row++ / s[2] % s[1];
                     return turned(call, x, p, call.word("layout", "half") == "interleaved");
                   }),
           4e-7, 5e-7}};
}
Wants alibi(const KernelCall& call) {
  const auto& s = call.in_shape("scores");
  int64_t power = 1;
  while (2 * power <= s[0]) power *= 2;
  Values slopes, y = in(call, "scores");
  for (int64_t h = 0; h < s[0]; ++h) {
    const double exponent = h < power ? static_cast<double>(h + 1) / static_cast<double>(power)
                                      : static_cast<double>(2 * (h - power) + 1) / static_cast<double>(2 * power);
    slopes.push_back(std::pow(2, -8 * exponent));
  }
  for (int64_t i = 0; i < count(y); ++i) {
    const int64_t distance = i / s[2] % s[1] + s[2] - s[1] - i % s[2];
    y[at(i)] -= slopes[at(i / s[2] / s[1])] * static_cast<double>(distance);
  }
  return {{"y", y, 4e-7, 4e-7 * std::max(1.0, rms(y))}, {"slopes", slopes, 2e-7}};
}

void draw_scores(Draw& d, KernelCall& call) {
  const int64_t heads = d.range(1, 3), length = d.size(80, 1), half = d.range(1, 40);
  d.add(call, "q", {heads, length, 2 * half}), d.add(call, "k", {heads, length, 2 * half});
  add_turns(d, call, length, half);
}
Wants scores(const KernelCall& call) {
  const auto& s = call.in_shape("q");
  int64_t row = 0;
  const auto turn = [&](const Values& x) { return turned(call, x, row++ % s[1], false); };
  const Values q = rows_of(call, "q", turn), k = rows_of(call, "k", turn);
  Values y;
  for (int64_t i = 0; i < s[0] * s[1]; ++i) {
    for (int64_t j = 0; j < s[1]; ++j) {
      const int64_t other = i / s[1] * s[1] + j;
      y.push_back(j > i % s[1] ? -kInf : scale_of(call) * sum_of(s[2], [&](size_t e) {
                                           return q[at(i * s[2]) + e] * k[at(other * s[2]) + e];
                                         }));
    }
  }
  return {{"scores", y, 1e-6, 3e-6 * std::sqrt(static_cast<double>(s[2]))}};
}

constexpr Oracle kAttentionOracles[] = {
    {"attention_sdpa", draw_attention<false, Heads::kEqual>, attention},
    {"attention_flash", draw_attention<true, Heads::kEqual>, attention},
    {"attention_mqa", draw_attention<true, Heads::kOne>, attention},
    {"attention_gqa", draw_attention<true, Heads::kSome>, attention},
    {"rope_precompute", draw_precompute, angles},
    {"rope_apply", draw_apply, applied},
    {"alibi_bias",
     [](Draw& d, KernelCall& call) {
       d.add(call, "scores", {d.range(1, 20), d.size(40), d.size(60)});
     },
     alibi},

    {"fused_attention_softmax_v", draw_one_head, attention},
    {"fused_rope_attention_mask", draw_scores, scores},
};

}  // namespace

std::span<const Oracle> attention_oracles() { return kAttentionOracles; }

}  // namespace graft::oracle
