// Float64 oracles of reductions, correlation, maps, scans and compaction (oracle_test.cc runs them).

#include "graft/kernels/oracle_test_util.h"

namespace graft::oracle {
namespace {

constexpr int64_t kMostElements = 20000;

// ---- reductions

template <bool kEmpty>
void draw_x(Draw& d, KernelCall& call) {
  d.add(call, "x", {d.size(kMostElements, kEmpty ? 0 : 1)}, d.one_of({1.0, 1e-3, 300.0}),
        d.kind({Kind::kOffset, Kind::kTies, Kind::kNan, Kind::kInfinite}));
}
void draw_moment(Draw& d, KernelCall& call) {
  draw_x<true>(d, call);
  if (d.chance(0.5)) set(call, "ddof", d.range(0, 2));
}

double extreme(const Values& x, double sign) {
  double best = -kInf;
  for (const double v : x) {
    if (v != v) return kNaN;
    best = std::max(best, sign * v);
  }
  return sign * best;
}
Wants arg(const KernelCall& call, double sign) {
  const Values x = in(call, "x");
  size_t best = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != x[i]) {
      best = i;
      break;
    }
    if (sign * x[i] > sign * x[best]) best = i;
  }
  return {{"value", {x[best]}}, {"index", {static_cast<double>(best)}}};
}

double covariance(const Values& x, const Values& y, int64_t ddof) {
  const int64_t n = count(x);
  if (n <= ddof) return kNaN;
  const double mx = mean_of(x), my = mean_of(y);
  return sum_of(n, [&](size_t i) { return (x[i] - mx) * (y[i] - my); }) / static_cast<double>(n - ddof);
}
Wants variance(const KernelCall& call, bool root) {
  const Values x = in(call, "x");
  const double v = covariance(x, x, call.integer("ddof", 0)), m = std::fabs(mean_of(x));
  // What an f32 mean leaves of a large offset comes on top.
  if (root) return {{"y", {std::sqrt(v)}, 1e-5, 1e-8 * m + 1e-12}};
  return {{"y", {v}, 1e-5, 4 * (1.2e-7 * m) * (1.2e-7 * m) + 1e-12}};
}

void draw_histogram(Draw& d, KernelCall& call) {
  const int64_t bins = d.one_of<int64_t>({1, 2, 10, 256, 1000});
  const double low = static_cast<double>(d.range(-8, 0)), high = static_cast<double>(d.range(1, 9));
  for (float& v : d.add(call, "x", {d.size(kMostElements)})) {
    // Away from the edges of bins, where f32 and f64 may differ, but for lo, hi and what falls out.
    v = static_cast<float>(low + (static_cast<double>(d.range(-2, bins + 1)) + d.uniform(0.02, 0.98)) * (high - low) /
                                     static_cast<double>(bins));
    if (d.chance(0.03)) v = static_cast<float>(d.one_of({low, high, kNaN, kInf, -kInf}));
  }
  set(call, "bins", bins), set(call, "lo", low), set(call, "hi", high);
}
Wants histogram(const KernelCall& call) {
  const int64_t bins = call.integer("bins", 0);
  const double low = call.real("lo", 0), high = call.real("hi", 0);
  Values counts(at(bins));
  for (const double v : in(call, "x")) {
    if (v >= low && v <= high)
      ++counts[at(std::min(bins - 1, static_cast<int64_t>((v - low) * static_cast<double>(bins) / (high - low))))];
  }
  return {{"counts", counts}};
}

void draw_masked(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMostElements);
  d.add(call, "x", {n}, 1, d.kind({Kind::kOffset, Kind::kNan, Kind::kInfinite}));
  d.add_mask(call, "mask", {n}, d.uniform(0, 1));
}
void draw_threshold(Draw& d, KernelCall& call) {
  d.add(call, "x", {d.size(kMostElements)}, 1, d.kind({Kind::kTies, Kind::kNan, Kind::kInfinite}));
  set(call, "threshold", d.one_of({0.25, 0.0, 1.0, -1.0, 1e6, -1e6}));
}
Values kept(const KernelCall& call) {
  Values y;
  for (const double v : in(call, "x")) {
    if (v > call.real("threshold", 0)) y.push_back(v);
  }
  return y;
}
Wants compacted(const KernelCall& call) {
  const Values y = kept(call);
  return {{"y", y}, {"count", {static_cast<double>(y.size())}}};
}
Values selected(const KernelCall& call) {
  const Values x = in(call, "x"), mask = in(call, "mask");
  Values y;
  for (size_t i = 0; i < x.size(); ++i) {
    if (mask[i] != 0) y.push_back(x[i]);
  }
  return y;
}

// ---- correlation

void draw_pair(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMostElements);
  const auto x = d.add(call, "x", {n}, 1, d.kind({Kind::kOffset, Kind::kTies, Kind::kNan}));
  const auto y = d.add(call, "y", {n}, 1, d.kind({Kind::kOffset}));
  const bool constant = d.chance(0.1);
  for (size_t i = 0; i < y.size(); ++i) y[i] = constant ? 2.5f : 0.6f * x[i] + 0.8f * y[i];
  if (d.chance(0.5)) set(call, "ddof", d.range(0, 2));
}
double correlation(const Values& x, const Values& y) {
  if (x.size() < 2) return kNaN;
  const double xx = covariance(x, x, 0), yy = covariance(y, y, 0);
  if (!(xx > 0 && yy > 0)) return kNaN;
  return std::clamp(covariance(x, y, 0) / std::sqrt(xx) / std::sqrt(yy), -1.0, 1.0);
}
void draw_weighted(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMostElements);
  d.add(call, "x", {n}, 1, d.kind({Kind::kOffset, Kind::kNan}));
  const bool zero = d.chance(0.1);
  const double low = d.one_of({0.0, -0.2});
  for (float& w : d.add_uniform(call, "w", {n}, low, 2)) w = zero ? 0 : w;
}
Wants weighted(const KernelCall& call, bool mean) {
  const Values x = in(call, "x"), w = in(call, "w");
  const double sum = sum_of(count(x), [&](size_t i) { return w[i] * x[i]; }), weights = sum_of(w);
  const double size = sum_of(count(x), [&](size_t i) { return std::fabs(w[i] * x[i]); });
  if (!mean) return {{"y", {sum}, 1e-6, 2e-6 * size}};
  if (weights == 0) return {{"y", {kNaN}}};
  const double m = sum / weights;
  return {{"y", {m}, 1e-6, 2e-6 * (size + std::fabs(m) * sum_abs(w)) / std::fabs(weights)}};
}

void draw_matrix(Draw& d, KernelCall& call) {
  const int64_t rows = d.size(400), columns = d.size(20);
  const auto x = d.add(call, "x", {rows, columns}, 1, d.kind({Kind::kNan, Kind::kTies}));
  const float offset = d.one_of({0.0f, 100.0f}), constant = d.one_of({0.0f, 1.0f});
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = constant > 0 && i % at(columns) == 1 ? 3 : x[i] + offset + (i % at(columns) > 0 ? 0.5f * x[i - 1] : 0);
  if (d.chance(0.3)) set(call, "ddof", d.range(0, 2));
}
std::vector<Values> columns_of(const KernelCall& call) {
  const Values x = in(call, "x");
  const auto width = at(call.in_shape("x")[1]);
  std::vector<Values> columns(width);
  for (size_t i = 0; i < x.size(); ++i) columns[i % width].push_back(x[i]);
  return columns;
}
Wants covariance_matrix(const KernelCall& call) {
  const std::vector<Values> x = columns_of(call);
  Values c, diagonal;
  for (const Values& a : x) {
    for (const Values& b : x) c.push_back(covariance(a, b, call.integer("ddof", 1)));
    diagonal.push_back(covariance(a, a, call.integer("ddof", 1)));
  }
  return {{"c", c, 1e-5, 1e-5 * max_abs(diagonal) + 1e-12}};
}
Wants pearson(const KernelCall& call) {
  const std::vector<Values> x = columns_of(call);
  Values r;
  for (size_t a = 0; a < x.size(); ++a) {
    for (size_t b = 0; b < x.size(); ++b) {
      const double value = correlation(x[a], x[b]);
      r.push_back(a == b && value == value ? 1 : value);
    }
  }
  return {{"r", r, 1e-5, 4e-6}};
}

// ---- maps

void draw_map(Draw& d, KernelCall& call) {
  const auto kind = d.kind({Kind::kHostile, Kind::kTies});
  d.add(call, "x", {d.size(5000)}, d.one_of({2.0, 30.0, 1e-3}), kind);
}
// Infinite inputs are unspecified.
void draw_gate(Draw& d, KernelCall& call) {
  draw_map(d, call);
  for (float& v : call.inputs().at("x").data.as<float>()) v = std::isinf(v) ? 1 : v;
}
using Function = double (*)(double, const KernelCall&);
Wants map_of(const KernelCall& call, Function function, double relative, double absolute) {
  Values y = in(call, "x");
  for (double& v : y) v = v != v ? v : function(v, call);
  return {{"y", y, relative, absolute}};
}
double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double to_f32_and_back(double x) { return static_cast<double>(static_cast<float>(x)); }
double gelu(double x, const KernelCall& call) {
  if (call.word("approximate", "tanh") == "none") return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

void draw_two(Draw& d, KernelCall& call) {
  const int64_t n = d.size(5000);
  const auto kind = d.kind({Kind::kHostile, Kind::kTies});
  d.add(call, "a", {n}, 2, kind), d.add(call, "b", {n}, 2, kind);
}
void draw_three(Draw& d, KernelCall& call) {
  draw_two(d, call);
  d.add(call, "c", call.in_shape("a"), 2, Kind::kTies);
}
void draw_compare(Draw& d, KernelCall& call) {
  draw_two(d, call);
  call.set_parameter("op", d.one_of({"eq", "ne", "lt", "le", "gt", "ge"}));
}
template <typename F>
Values pairs(const KernelCall& call, F&& f) {
  Values a = in(call, "a");
  const Values b = in(call, "b");
  for (size_t i = 0; i < a.size(); ++i) a[i] = f(a[i], b[i]);
  return a;
}
bool compare(const std::string& op, double a, double b) {
  return op == "eq"   ? a == b
         : op == "ne" ? a != b
         : op == "lt" ? a < b
         : op == "le" ? a <= b
         : op == "gt" ? a > b
                      : a >= b;
}

// ---- scans

void draw_scan(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMostElements);
  const auto x = call.add_input("x", DType::kU32, {n}).data.as<uint32_t>();
  const bool wraps = d.chance(0.5);
  for (int64_t i = 0; i < n; ++i) x[at(i)] = wraps ? d.word() : d.word() % 1000;
}
Wants scanned(const KernelCall& call, bool inclusive) {
  Values y = in(call, "x");
  uint64_t sum = 0;
  for (double& v : y) {
    const uint64_t before = sum;
    sum = (sum + static_cast<uint64_t>(v)) & 0xFFFFFFFF;
    v = static_cast<double>(inclusive ? sum : before);
  }
  return {{"y", y}};
}

void draw_rows(Draw& d, KernelCall& call) {
  const int64_t columns = d.size(600), rows = d.size(40);
  const auto kind = d.kind({Kind::kTies, Kind::kOffset});
  const auto a = d.add(call, "a", {rows, columns}, 1, kind);
  if (rows > 1 && d.chance(0.3)) std::fill_n(a.begin(), columns, 0.0f);
  d.add(call, "b", {rows, columns});
}
std::array<double, 4> products(const KernelCall& call, int64_t row) {
  const int64_t n = call.in_shape("a")[1];
  const Values a = part(in(call, "a"), row * n, n), b = part(in(call, "b"), row * n, n);
  return {sum_of(n, [&](size_t i) { return a[i] * b[i]; }), sum_of(n, [&](size_t i) { return a[i] * a[i]; }),
          sum_of(n, [&](size_t i) { return b[i] * b[i]; }),
          sum_of(n, [&](size_t i) { return std::fabs(a[i] * b[i]); })};
}

constexpr Oracle kVectorOracles[] = {
    {"reduce_sum", draw_x<true>,
     [](const KernelCall& c) -> Wants {
       return {{"y", {sum_of(in(c, "x"))}, 1e-6, 2e-6 * sum_abs(in(c, "x"))}};
     }},
    {"reduce_mean", draw_x<true>,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x");
       return {{"y", {mean_of(x)}, 1e-6, x.empty() ? 0 : 2e-6 * sum_abs(x) / static_cast<double>(x.size())}};
     }},
    {"reduce_min", draw_x<false>,
     [](const KernelCall& c) -> Wants {
       return {{"y", {extreme(in(c, "x"), -1)}}};
     }},
    {"reduce_max", draw_x<false>,
     [](const KernelCall& c) -> Wants {
       return {{"y", {extreme(in(c, "x"), 1)}}};
     }},
    {"reduce_l2", draw_x<true>,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x");
       return {{"y", {std::sqrt(sum_of(count(x), [&](size_t i) { return x[i] * x[i]; }))}, 2e-6}};
     }},
    {"reduce_var", draw_moment, [](const KernelCall& c) { return variance(c, false); }},
    {"reduce_stddev", draw_moment, [](const KernelCall& c) { return variance(c, true); }},
    {"reduce_histogram", draw_histogram, histogram},
    {"reduce_argmax", draw_x<false>, [](const KernelCall& c) { return arg(c, 1); }},
    {"reduce_argmin", draw_x<false>, [](const KernelCall& c) { return arg(c, -1); }},
    {"map_reduce_square_sum", draw_x<true>,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x");
       return {{"y", {sum_of(count(x), [&](size_t i) { return x[i] * x[i]; })}, 2e-6}};
     }},
    {"map_reduce_abs_sum", draw_x<true>,
     [](const KernelCall& c) -> Wants {
       return {{"y", {sum_abs(in(c, "x"))}, 2e-6}};
     }},
    {"map_reduce_masked_sum", draw_masked,
     [](const KernelCall& c) -> Wants {
       const Values x = selected(c);
       return {{"y", {sum_of(x)}, 1e-6, 2e-6 * sum_abs(x)}};
     }},
    {"map_reduce_threshold_count", draw_threshold,
     [](const KernelCall& c) -> Wants {
       return {{"count", {static_cast<double>(kept(c).size())}}};
     }},

    {"reduce_correlation", draw_pair,
     [](const KernelCall& c) -> Wants {
       return {{"r", {correlation(in(c, "x"), in(c, "y"))}, 1e-5, 2e-6}};
     }},
    {"reduce_covariance", draw_pair,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x"), y = in(c, "y");
       const double size = std::sqrt(covariance(x, x, 0) * covariance(y, y, 0));
       return {{"c", {covariance(x, y, c.integer("ddof", 1))}, 1e-5, 1e-5 * size + 1e-12}};
     }},
    {"reduce_weighted_sum", draw_weighted, [](const KernelCall& c) { return weighted(c, false); }},
    {"reduce_weighted_mean", draw_weighted, [](const KernelCall& c) { return weighted(c, true); }},
    {"reduce_covariance_matrix", draw_matrix, covariance_matrix},
    {"reduce_pearson_pairwise", draw_matrix, pearson},

    {"map_exp", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return std::exp(x); }, 1e-6, 0);
     }},
    {"map_log", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return x < 0 ? kNaN : std::log(std::fabs(x)); }, 1e-6, 1.2e-7);
     }},
    {"map_sigmoid", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return sigmoid(x); }, 1e-6, 0);
     }},
    {"map_tanh", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return std::tanh(x); }, 1e-6, 1.2e-7);
     }},
    {"map_softplus", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return softplus(x); }, 1e-6, 1e-7);
     }},
    {"map_clamp",
     [](Draw& d, KernelCall& call) {
       draw_map(d, call);
       set(call, "lo", d.uniform(-3, 0)), set(call, "hi", d.uniform(0, 3));
     },
     [](const KernelCall& c) {
       return map_of(
           c,
           [](double x, const KernelCall& call) {
             return std::min(std::max(x, to_f32_and_back(call.real("lo", 0))), to_f32_and_back(call.real("hi", 0)));
           },
           0, 0);
     }},
    {"map_abs", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return std::fabs(x); }, 0, 0);
     }},
    {"map_relu", draw_map,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return std::max(x, 0.0); }, 0, 0);
     }},
    {"map_leaky_relu",
     [](Draw& d, KernelCall& call) {
       draw_map(d, call);
       if (d.chance(0.7)) set(call, "alpha", d.uniform(0, 0.5));
     },
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall& call) { return x > 0 ? x : call.real("alpha", 0.01) * x; }, 2e-7, 0);
     }},
    {"map_elu",
     [](Draw& d, KernelCall& call) {
       draw_map(d, call);
       if (d.chance(0.7)) set(call, "alpha", d.uniform(0.5, 1.5));
     },
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall& call) { return x > 0 ? x : call.real("alpha", 1) * std::expm1(x); }, 1e-6,
           2e-7);
     }},
    {"map_gelu",
     [](Draw& d, KernelCall& call) {
       draw_gate(d, call);
       if (d.chance(0.7)) call.set_parameter("approximate", d.one_of({"tanh", "none"}));
     },
     [](const KernelCall& c) { return map_of(c, gelu, 2e-6, 6e-7); }},
    {"map_silu", draw_gate,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return x * sigmoid(x); }, 2e-6, 1e-30);
     }},
    {"map_mish", draw_gate,
     [](const KernelCall& c) {
       return map_of(
           c, [](double x, const KernelCall&) { return x * std::tanh(softplus(x)); }, 2e-6, 2e-7);
     }},

    {"map_add", draw_two,
     [](const KernelCall& c) -> Wants {
       return {{"y", pairs(c, [](double a, double b) { return a + b; }), 1.2e-7}};
     }},
    {"map_mul", draw_two,
     [](const KernelCall& c) -> Wants {
       return {{"y", pairs(c, [](double a, double b) { return a * b; }), 1.2e-7}};
     }},
    {"map_div", draw_two,
     [](const KernelCall& c) -> Wants {
       return {{"y", pairs(c, [](double a, double b) { return a / b; }), 1.8e-7}};
     }},
    {"map_fma", draw_three,
     [](const KernelCall& c) -> Wants {
       const Values e = in(c, "c");
       size_t i = 0;
       return {{"y", pairs(c, [&](double a, double b) { return a * b + e[i++]; }), 1.2e-7}};
     }},
    {"map_compare", draw_compare,
     [](const KernelCall& c) -> Wants {
       return {{"mask", pairs(c, [&](double a, double b) { return compare(c.word("op", "gt"), a, b) ? 1 : 0; })}};
     }},

    {"scan_exclusive", draw_scan, [](const KernelCall& c) { return scanned(c, false); }},
    {"scan_inclusive", draw_scan, [](const KernelCall& c) { return scanned(c, true); }},
    {"compact_if", draw_threshold, compacted},
    {"fused_scan_compact", draw_threshold, compacted},
    {"compact_mask", draw_masked,
     [](const KernelCall& c) -> Wants {
       const Values y = selected(c);
       return {{"y", y}, {"count", {static_cast<double>(y.size())}}};
     }},

    {"dot_batched", draw_rows,
     [](const KernelCall& c) -> Wants {
       Values y;
       double most = 0;
       for (int64_t r = 0; r < c.in_shape("a")[0]; ++r) {
         y.push_back(products(c, r)[0]);
         most = std::max(most, products(c, r)[3]);
       }
       return {{"y", y, 1e-6, 2e-6 * most}};
     }},
    {"cosine_similarity", draw_rows,
     [](const KernelCall& c) -> Wants {
       Values y;
       for (int64_t r = 0; r < c.in_shape("a")[0]; ++r) {
         const auto p = products(c, r);
         y.push_back(p[0] / (std::max(std::sqrt(p[1]), 1e-8) * std::max(std::sqrt(p[2]), 1e-8)));
       }
       return {{"y", y, 1e-6, 2e-6}};
     }},
};

}  // namespace

std::span<const Oracle> vector_oracles() { return kVectorOracles; }

}  // namespace graft::oracle
