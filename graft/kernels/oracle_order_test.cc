// Float64 oracles of sorting, selection, layout, quantization and random numbers (oracle_test.cc runs them).

#include "graft/kernels/oracle_test_util.h"

namespace graft::oracle {
namespace {

constexpr int64_t kMost = 20000;

// ---- sorting and selection

// Numbers ascending, NaN behind them.
bool before(double a, double b) { return b != b ? a == a : a < b; }

std::vector<size_t> indices(size_t n) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}
Values take(const Values& x, const std::vector<size_t>& order) {
  Values y;
  for (const size_t i : order) y.push_back(x[i]);
  return y;
}
void add_words(Draw& d, KernelCall& call, std::string_view name, int64_t n, uint32_t below) {
  const auto x = call.add_input(name, DType::kU32, {n}).data.as<uint32_t>();
  for (int64_t i = 0; i < n; ++i) x[at(i)] = below == 0 ? d.word() : d.word() % below;
}

void draw_radix(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMost);
  add_words(d, call, "keys", n, d.one_of({0u, 16u, 1000u}));
  if (d.chance(0.5)) add_words(d, call, "values", n, 0);
}
Wants radix(const KernelCall& call) {
  const Values keys = in(call, "keys");
  std::vector<size_t> order = indices(keys.size());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
  Wants wants = {{"keys", take(keys, order)}};
  if (call.has_input("values")) wants.push_back({"values", take(in(call, "values"), order)});
  return wants;
}
template <int64_t kLeast>
void draw_numbers(Draw& d, KernelCall& call) {
  d.add(call, "x", {d.size(kMost, kLeast)}, 1, d.kind({Kind::kTies, Kind::kNan, Kind::kInfinite, Kind::kOffset}));
}
void draw_keyed(Draw& d, KernelCall& call) {
  const int64_t n = d.size(kMost);
  d.add(call, "keys", {n}, 1, d.kind({Kind::kTies, Kind::kNan, Kind::kInfinite}));
  add_words(d, call, "values", n, d.one_of({0u, 5u}));
}
Wants sorted_pairs(const KernelCall& call) {
  const Values keys = in(call, "keys"), values = in(call, "values");
  std::vector<size_t> order = indices(keys.size());
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (before(keys[a], keys[b]) || before(keys[b], keys[a])) return before(keys[a], keys[b]);
    return values[a] < values[b];
  });
  return {{"keys", take(keys, order)}, {"values", take(values, order)}};
}
Wants largest(const KernelCall& call) {
  const Values x = in(call, "x");
  std::vector<size_t> order = indices(x.size());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return before(x[b], x[a]); });
  order.resize(at(call.integer("k", 100)));
  return {{"values", take(x, order)}, {"indices", Values(order.begin(), order.end())}};
}
double quantile(Values x, double p) {
  std::sort(x.begin(), x.end(), before);
  if (x.empty() || x.back() != x.back()) return kNaN;
  const double h = static_cast<double>(x.size() - 1) * p / 100;
  const auto k = static_cast<size_t>(h);
  const double f = h - static_cast<double>(k);
  return f == 0 ? x[k] : x[k] + f * (x[k + 1] - x[k]);
}

// ---- layout

template <const char* kInput>
void draw_turned(Draw& d, KernelCall& call) {
  d.add(call, kInput, {d.size(150), d.size(150)}, 1, Kind::kHostile);
}
Values turned(const KernelCall& call, std::string_view name) {
  const Values x = in(call, name);
  const int64_t rows = call.in_shape(name)[0], columns = call.in_shape(name)[1];
  Values y;
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) y.push_back(x[at(i * columns + j)]);
  }
  return y;
}
constexpr char kX[] = "x", kAos[] = "aos", kSoa[] = "soa";

// ---- quantization

// The nearest binary16, ties to even, from arithmetic.
double half(double v) {
  if (v != v || std::isinf(v) || v == 0) return v;
  int exponent;
  std::frexp(v, &exponent);
  const double step = std::ldexp(1.0, std::max(exponent - 1, -14) - 10);
  const double r = std::nearbyint(v / step) * step;
  return std::fabs(r) >= 65536 ? std::copysign(kInf, v) : r;
}
Values scales(const KernelCall& call) {
  const Values x = in(call, "x");
  const int64_t columns = call.in_shape("x")[1];
  Values s;
  for (int64_t r = 0; r < call.in_shape("x")[0]; ++r) {
    const double most = max_abs(part(x, r * columns, columns));
    s.push_back(most > 0 ? static_cast<double>(static_cast<float>(most / 127)) : 1);
  }
  return s;
}
void draw_halves(Draw& d, KernelCall& call) {
  const int64_t rows = d.size(20), columns = d.size(700);
  d.add_half(call, "x", {rows, columns}, d.one_of({1.0, 0.1, 20.0}));
  const auto x = call.inputs().at("x").data.as<f16>();
  if (rows > 1 && d.chance(0.3)) std::fill_n(x.begin(), columns, f16{0});
  // Nothing beside a tie of the rounding, where the order of any sane arithmetic shows.
  const Values s = scales(call), values = in(call, "x");
  for (size_t i = 0; i < values.size(); ++i) {
    const double q = values[i] / s[i / at(columns)];
    if (std::fabs(std::fabs(q - std::floor(q)) - 0.5) < 2e-3) x[i] = f16{0};
  }
}
Wants quantized(const KernelCall& call) {
  const Values s = scales(call);
  Values q = in(call, "x");
  const auto columns = at(call.in_shape("x")[1]);
  for (size_t i = 0; i < q.size(); ++i) q[i] = std::clamp(std::nearbyint(q[i] / s[i / columns]), -127.0, 127.0);
  return {{"q", q}, {"scale", s, 2.4e-7}};
}
void draw_bytes(Draw& d, KernelCall& call) {
  const int64_t rows = d.size(20), columns = d.size(700);
  KernelTensor& q = call.add_input("q", DType::kI8, {rows, columns});
  for (int64_t i = 0; i < q.size(); ++i) q.data.as<int8_t>()[at(i)] = static_cast<int8_t>(d.range(-127, 127));
  for (float& s : d.add(call, "scale", {rows})) s = static_cast<float>(std::exp(d.uniform(-6, 5)));
}
Wants dequantized(const KernelCall& call) {
  Values x = in(call, "q");
  const Values s = in(call, "scale");
  const auto columns = at(call.in_shape("q")[1]);
  for (size_t i = 0; i < x.size(); ++i) x[i] = half(x[i] * s[i / columns]);
  return {{"x", x, 1e-3, 6e-8}};
}
void draw_wide(Draw& d, KernelCall& call) {
  constexpr double kSpecial[] = {
      0.0,     -0.0,        65504,   65519.99, 65520,          -65520, 1e9,  kInf, -kInf,       kNaN,
      0x1p-14, 0x1.ffcp-15, 0x1p-24, 0x1p-25,  0x1.000002p-25, 1e-10,  2049, 2051, 1 + 0x1p-11, 1 + 3 * 0x1p-11,
      -1.0 / 3};
  for (float& v : d.add(call, "x", {d.size(5000)})) {
    v = static_cast<float>(d.chance(0.2) ? kSpecial[d.range(0, std::size(kSpecial) - 1)]
                                         : d.normal() * std::exp(d.uniform(-18, 12)));
  }
}

// ---- random numbers

void draw_stream(Draw& d, KernelCall& call) {
  set(call, "n", d.size(3000));
  set(call, "first", d.one_of<int64_t>({0, 1, 6, 1001, (int64_t{1} << 34) + 1, (int64_t{1} << 40) - 3}));
  set(call, "seed", static_cast<int64_t>(d.word()) << d.range(0, 30));
  set(call, "stream", static_cast<int64_t>(d.word()) << d.range(0, 30));
}
std::vector<uint32_t> words_of(const KernelCall& call, int64_t n) {
  return philox_words(call.natural("seed", 0), call.natural("stream", 0), call.natural("first", 0), n);
}
Values uniform_of(const KernelCall& call) {
  Values y;
  for (const uint32_t w : words_of(call, call.integer("n", 0))) y.push_back((w >> 8) * 0x1p-24);
  return y;
}
void draw_philox(Draw& d, KernelCall& call) {
  if (d.chance(0.5)) return draw_stream(d, call);
  const int64_t n = d.size(500);
  for (const auto& [name, width] : {std::pair{"ctr", 4}, std::pair{"key", 2}}) {
    KernelTensor& t = call.add_input(name, DType::kU32, {n, width});
    for (int64_t i = 0; i < t.size(); ++i) t.data.as<uint32_t>()[at(i)] = d.word();
  }
}
Wants philox(const KernelCall& call) {
  Values y;
  if (!call.has_input("ctr")) {
    const auto words = words_of(call, call.integer("n", 0));
    return {{"y", Values(words.begin(), words.end())}};
  }
  const auto ctr = call.in<uint32_t>("ctr"), key = call.in<uint32_t>("key");
  for (size_t i = 0; i < ctr.size() / 4; ++i) {
    for (const uint32_t w :
         philox4x32({key[2 * i], key[2 * i + 1]}, {ctr[4 * i], ctr[4 * i + 1], ctr[4 * i + 2], ctr[4 * i + 3]}))
      y.push_back(w);
  }
  return {{"y", y}};
}
void draw_normals(Draw& d, KernelCall& call) {
  draw_stream(d, call);
  set(call, "first", 2 * (call.integer("first", 0) / 2));
}
Wants normals(const KernelCall& call) {
  const int64_t n = call.integer("n", 0);
  const auto w = words_of(call, n + n % 2);
  Values y;
  for (size_t i = 0; i < at(n); ++i) {
    const double u1 = ((w[i / 2 * 2] >> 8) + 1) * 0x1p-24, u2 = (w[i / 2 * 2 + 1] >> 8) * 0x1p-24;
    const double angle = 2 * std::numbers::pi * u2;
    y.push_back(std::sqrt(-2 * std::log(u1)) * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
  }
  return {{"y", y, 2e-6, 4e-6}};
}

constexpr Oracle kOrderOracles[] = {
    {"sort_radix", draw_radix, radix},
    {"sort_bitonic", draw_numbers<0>,
     [](const KernelCall& c) -> Wants {
       Values x = in(c, "x");
       std::sort(x.begin(), x.end(), before);
       return {{"y", x}};
     }},
    {"sort_bitonic_kv", draw_keyed, sorted_pairs},
    {"topk_select",
     [](Draw& d, KernelCall& call) {
       draw_numbers<0>(d, call);
       const int64_t n = call.in_shape("x")[0];
       set(call, "k", d.chance(0.5) ? std::min<int64_t>(n, d.size(200)) : d.range(0, n));
     },
     largest},
    {"median_select",
     [](Draw& d, KernelCall& call) {
       d.add(call, "x", {d.size(kMost)}, 1, d.kind({Kind::kTies, Kind::kNan, Kind::kOffset}));
     },
     [](const KernelCall& c) -> Wants {
       return {{"y", {quantile(in(c, "x"), 50)}, 2.4e-7}};
     }},
    {"percentile_select",
     [](Draw& d, KernelCall& call) {
       d.add(call, "x", {d.size(kMost)}, 1, d.kind({Kind::kTies, Kind::kNan, Kind::kOffset}));
       for (float& p : d.add_uniform(call, "p", {d.size(12)}, 0, 100))
         p = d.chance(0.3) ? d.one_of({0.0f, 50.0f, 100.0f}) : p;
     },
     [](const KernelCall& c) -> Wants {
       Values y;
       for (const double p : in(c, "p")) y.push_back(quantile(in(c, "x"), p));
       return {{"y", y, 1e-6, 1e-6 * rms(in(c, "x"))}};
     }},

    {"transpose_2d", draw_turned<kX>,
     [](const KernelCall& c) -> Wants {
       return {{"y", turned(c, kX)}};
     }},
    {"repack_aos_to_soa", draw_turned<kAos>,
     [](const KernelCall& c) -> Wants {
       return {{"soa", turned(c, kAos)}};
     }},
    {"repack_soa_to_aos", draw_turned<kSoa>,
     [](const KernelCall& c) -> Wants {
       return {{"aos", turned(c, kSoa)}};
     }},

    {"quantize_f16_to_i8", draw_halves, quantized},
    {"dequantize_i8_to_f16", draw_bytes, dequantized},
    {"quantize_f32_to_f16", draw_wide,
     [](const KernelCall& c) -> Wants {
       Values y = in(c, "x");
       for (double& v : y) v = half(v);
       return {{"y", y}};
     }},

    {"prng_philox", draw_philox, philox},
    {"prng_uniform_f32", draw_stream,
     [](const KernelCall& c) -> Wants {
       return {{"y", uniform_of(c)}};
     }},
    {"prng_normal_f32", draw_normals, normals},
    {"prng_dropout_mask",
     [](Draw& d, KernelCall& call) {
       draw_stream(d, call);
       if (d.chance(0.7)) set(call, "keep_prob", d.one_of({0.0, 0.5, 0.75, 1.0, d.uniform(0, 1)}));
     },
     [](const KernelCall& c) -> Wants {
       Values mask = uniform_of(c);
       for (double& v : mask) v = v < static_cast<double>(static_cast<float>(c.real("keep_prob", 0.9))) ? 1 : 0;
       return {{"mask", mask}};
     }},
};

}  // namespace

std::span<const Oracle> order_oracles() { return kOrderOracles; }

}  // namespace graft::oracle
