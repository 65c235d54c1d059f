// Float64 oracles of transforms, signals, linear algebra and simulation (oracle_test.cc runs them).

#include <complex>

#include "graft/kernels/oracle_test_util.h"

namespace graft::oracle {
namespace {

using Complex = std::complex<double>;

// ---- transforms

// sum of z[n] e^(sign 2 pi i n k / N), the angle reduced in integers.
std::vector<Complex> transform(const std::vector<Complex>& z, double sign) {
  const size_t n = z.size();
  std::vector<Complex> turns(n), y(n);
  for (size_t i = 0; i < n; ++i) {
    const double angle = sign * 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
    turns[i] = {std::cos(angle), std::sin(angle)};
  }
  for (size_t k = 0; k < n; ++k) {
    for (size_t i = 0, turn = 0; i < n; ++i, turn = (turn + k) % n) y[k] += z[i] * turns[turn];
  }
  return y;
}
std::vector<Complex> complex_input(const KernelCall& call) {
  const Values x = in(call, "x");
  std::vector<Complex> z;
  for (size_t i = 0; i + 1 < x.size(); i += 2) z.emplace_back(x[i], x[i + 1]);
  return z;
}
Wants spectrum(const std::vector<Complex>& z, double factor = 1) {
  Values y;
  for (const Complex& v : z) y.push_back(v.real() * factor), y.push_back(v.imag() * factor);
  return {{"y", y, 0, 4e-6 * rms(y)}};
}
template <int kBase>
void draw_power(Draw& d, KernelCall& call) {
  d.add(call, "x", {int64_t{1} << (kBase == 2 ? d.range(0, 10) : 2 * d.range(0, 5)), 2}, d.one_of({1.0, 1e-3}));
}
Wants forward(const KernelCall& call) { return spectrum(transform(complex_input(call), -1)); }
Wants real_spectrum(const KernelCall& call) {
  std::vector<Complex> z;
  for (const double v : in(call, "x")) z.emplace_back(v, 0);
  z = transform(z, -1);
  z.resize(z.size() / 2 + 1);
  z.front() = z.front().real(), z.back() = z.back().real();
  return spectrum(z);
}
Wants power(const KernelCall& call) {
  const std::vector<Complex> z = complex_input(call);
  Values y;
  for (size_t i = 0; i < z.size(); ++i) {
    const bool twice = call.flag("one_sided", false) && i > 0 && i + 1 < z.size();
    y.push_back(std::norm(z[i]) * call.real("factor", 1) * (twice ? 2 : 1));
  }
  return {{"y", y, 4e-7}};
}

// ---- signals

int64_t taps_of(Draw& d) { return d.one_of<int64_t>({1, 2, 3, 5, 32, 33, 64, 65, 100, 256, 300}); }
void draw_conv1d(Draw& d, KernelCall& call) {
  const int64_t n = d.size(3000), taps = taps_of(d);
  d.add(call, "x", {n}), d.add(call, "w", {taps}, 0.5);
  call.set_parameter("pad", taps / 2 < n ? d.one_of({"zero", "reflect", "circular"}) : "zero");
}
Wants conv1d(const KernelCall& call) {
  const Values x = in(call, "x"), w = in(call, "w");
  const int64_t n = count(x);
  const std::string pad = call.word("pad", "zero");
  Values y;
  for (int64_t i = 0; i < n; ++i) {
    y.push_back(sum_of(count(w), [&](size_t k) {
      int64_t j = i - count(w) / 2 + static_cast<int64_t>(k);
      if (pad == "circular") j = (j % n + n) % n;
      if (pad == "reflect") j = j < 0 ? -j : j >= n ? 2 * (n - 1) - j : j;
      return j >= 0 && j < n ? w[k] * x[at(j)] : 0;
    }));
  }
  return {{"y", y, 1e-6, 2e-6 * max_abs(x) * sum_abs(w)}};
}
Values convolved(const Values& x, const Values& h, int64_t outputs) {
  Values y;
  for (int64_t i = 0; i < outputs; ++i) {
    y.push_back(sum_of(count(h), [&](size_t k) {
      const int64_t j = i - static_cast<int64_t>(k);
      return j >= 0 && j < count(x) ? h[k] * x[at(j)] : 0;
    }));
  }
  return y;
}
template <int64_t kLeast>
void draw_filter(Draw& d, KernelCall& call) {
  d.add(call, "x", {d.size(3000, kLeast)});
  d.add(call, "h", {taps_of(d)}, 0.5);
  if (d.chance(0.5)) call.set_parameter("mode", d.one_of({"full", "causal"}));
}
double norm_of(const Values& x) {
  return std::sqrt(sum_of(count(x), [&](size_t i) { return x[i] * x[i]; }));
}
Values centred(Values x) {
  const double m = mean_of(x);
  for (double& v : x) v -= m;
  return x;
}
Wants autocorrelation(const KernelCall& call) {
  Values x = in(call, "x"), y;
  if (call.flag("demean", false)) x = centred(x);
  for (int64_t k = 0; k < count(x); ++k)
    y.push_back(sum_of(count(x) - k, [&](size_t i) { return x[i] * x[i + at(k)]; }));
  const double scale = call.flag("normalize", false) && !y.empty() ? 1 / y[0] : 1;
  for (double& v : y) v *= scale;
  return {{"y", y, 1e-6, y.empty() ? 0 : 2e-6 * y[0]}};
}
Wants cross_correlation(const KernelCall& call) {
  Values a = in(call, "a"), b = in(call, "b"), y;
  const bool normalize = call.flag("normalize", false);
  if (normalize) a = centred(a), b = centred(b);
  const double size = norm_of(a) * norm_of(b);
  for (int64_t k = 1 - count(b); k < count(a); ++k) {
    const int64_t begin = std::max<int64_t>(0, -k), end = std::min(count(b), count(a) - k);
    y.push_back(sum_of(end - begin, [&](size_t t) { return a[at(begin + k) + t] * b[at(begin) + t]; }) /
                (normalize ? size : 1));
  }
  return {{"y", y, 1e-6, 2e-6 * (normalize ? 1 : size)}};
}
Wants windowed(const KernelCall& call) {
  Values y = in(call, "x");
  const double most = max_abs(y);
  const double n = static_cast<double>(y.size()), length = call.flag("periodic", false) ? n : n - 1;
  const std::string window = call.word("window", "hann");
  for (size_t i = 0; i < y.size(); ++i) {
    const double t = 2 * std::numbers::pi * static_cast<double>(i) / length;
    if (n == 1 || window == "rect") continue;
    y[i] *= window == "hann"      ? 0.5 - 0.5 * std::cos(t)
            : window == "hamming" ? 0.54 - 0.46 * std::cos(t)
                                  : 0.42 - 0.5 * std::cos(t) + 0.08 * std::cos(2 * t);
  }
  return {{"y", y, 1e-6, 5e-7 * most}};
}

// ---- linear algebra

void draw_sparse(Draw& d, KernelCall& call) {
  const int64_t rows = d.size(300), columns = d.size(300, 1), most = d.one_of<int64_t>({3, 40, 200});
  std::vector<uint32_t> pointers = {0};
  for (int64_t r = 0; r < rows; ++r)
    pointers.push_back(pointers.back() + (d.chance(0.2) ? 0 : static_cast<uint32_t>(d.range(1, most))));
  const int64_t entries = pointers.back();
  d.add(call, "values", {entries}), d.add(call, "x", {columns});
  const auto index = call.add_input("col_idx", DType::kU32, {entries}).data.as<uint32_t>();
  for (int64_t i = 0; i < entries; ++i) index[at(i)] = static_cast<uint32_t>(d.range(0, columns - 1));
  std::ranges::copy(pointers, call.add_input("row_ptr", DType::kU32, {rows + 1}).data.as<uint32_t>().begin());
}
// y[i] = sum of the products of term(i, e) over e below count(i), and the bound of the specification.
template <typename Count, typename Term>
Want products(std::string_view name, int64_t n, Count&& length, Term&& term) {
  Values y;
  double most = 0;
  for (int64_t i = 0; i < n; ++i) {
    y.push_back(sum_of(length(i), [&](size_t e) { return term(i, e); }));
    most = std::max(most, sum_of(length(i), [&](size_t e) { return std::fabs(term(i, e)); }));
  }
  return {name, y, 1e-6, 2e-6 * most};
}
Wants sparse(const KernelCall& call) {
  const Values values = in(call, "values"), x = in(call, "x");
  const auto index = call.in<uint32_t>("col_idx"), pointers = call.in<uint32_t>("row_ptr");
  return {products(
      "y", static_cast<int64_t>(pointers.size()) - 1,
      [&](int64_t r) { return static_cast<int64_t>(pointers[at(r + 1)] - pointers[at(r)]); },
      [&](int64_t r, size_t e) { return values[pointers[at(r)] + e] * x[index[pointers[at(r)] + e]]; })};
}
void draw_matmul(Draw& d, KernelCall& call) {
  const int64_t batch = d.range(0, 3), summed = d.one_of<int64_t>({0, 1, 5, 17, 64, 130, 513, 700});
  d.add(call, "a", {batch, d.size(40), summed});
  d.add(call, "b", {batch, summed, d.size(70)});
}
Wants matmul(const KernelCall& call) {
  const Values a = in(call, "a"), b = in(call, "b");
  const int64_t rows = call.in_shape("a")[1], summed = call.in_shape("a")[2], columns = call.in_shape("b")[2];
  return {products(
      "c", call.in_shape("a")[0] * rows * columns, [&](int64_t) { return summed; },
      [&](int64_t i, size_t e) {
        const int64_t column = i % columns, row = i / columns, batch = row / rows;
        return a[at(row * summed) + e] * b[(at(batch * summed) + e) * at(columns) + at(column)];
      })};
}
Wants matvec(const KernelCall& call) {
  const Values a = in(call, "a"), x = in(call, "x");
  return {products(
      "y", call.in_shape("a")[0], [&](int64_t) { return count(x); },
      [&](int64_t r, size_t e) { return a[at(r) * x.size() + e] * x[e]; })};
}
// Off-diagonals over sqrt n and a diagonal of 1 to 2: others are exponentially ill-conditioned.
void draw_triangle(Draw& d, KernelCall& call) {
  const int64_t n = d.size(150);
  const auto a = d.add(call, "a", {n, n}, 1 / std::sqrt(std::max(1.0, static_cast<double>(n))));
  for (int64_t i = 0; i < n; ++i) a[at(i * n + i)] = static_cast<float>(d.one_of({-1.0, 1.0}) * d.uniform(1, 2));
  d.add(call, "b", {n, d.one_of<int64_t>({1, 2, 3, 7, 16, 33})});
  set(call, "lower", d.chance(0.5)), set(call, "unit_diagonal", d.chance(0.3));
}
Wants solved(const KernelCall& call) {
  const Values a = in(call, "a");
  Values x = in(call, "b");
  const int64_t n = call.in_shape("b")[0], m = call.in_shape("b")[1];
  const bool lower = call.flag("lower", true);
  for (int64_t step = 0; step < n; ++step) {
    const int64_t r = lower ? step : n - 1 - step, begin = lower ? 0 : r + 1, end = lower ? r : n;
    for (int64_t c = 0; c < m; ++c) {
      double& v = x[at(r * m + c)];
      v -= sum_of(end - begin, [&](size_t j) { return a[at(r * n + begin) + j] * x[(at(begin) + j) * at(m) + at(c)]; });
      if (!call.flag("unit_diagonal", false)) v /= a[at(r * n + r)];
    }
  }
  return {{"x", x, 2e-5, 1e-5 * max_abs(x)}};
}

// ---- simulation

using Point = std::array<int64_t, 3>;  // a cell, or a step to one
int64_t wrapped(int64_t i, int64_t n) { return (i % n + n) % n; }
// One step on a grid [D, H, W]: sum of coefficients times cells at offsets; cells within `radius` of an edge of an axis that `used` keeps.
Values stencil(const Values& u, const Shape& s, std::span<const Point> offsets, const Values& coeffs, bool periodic,
               int64_t radius, size_t first_axis) {
  Values y = u;
  for (int64_t i = 0; i < count(u); ++i) {
    const Point p = {i / s[2] / s[1], i / s[2] % s[1], i % s[2]};
    bool inside = true;
    for (size_t axis = first_axis; axis < 3; ++axis) inside = inside && p[axis] >= radius && p[axis] < s[axis] - radius;
    if (!periodic && !inside) continue;
    double sum = 0;
    for (size_t k = 0; k < offsets.size(); ++k) {
      int64_t j = 0;
      for (size_t axis = 0; axis < 3; ++axis) j = j * s[axis] + wrapped(p[axis] + offsets[k][axis], s[axis]);
      sum += coeffs[k] * u[at(j)];
    }
    y[at(i)] = sum;
  }
  return y;
}
constexpr Point kCross[] = {{0, 0, 0}, {0, -1, 0}, {0, 1, 0}, {0, 0, -1}, {0, 0, 1}};
bool periodic(const KernelCall& call) { return call.word("boundary", "fixed") == "periodic"; }
Want grid_want(std::string_view name, const Values& u) { return {name, u, 1e-6, 3e-6 * std::max(1.0, rms(u))}; }

template <bool kWave>
void draw_grid(Draw& d, KernelCall& call) {
  const Shape shape = {d.size(50), d.size(90)};
  d.add(call, "u", shape);
  if (kWave) d.add(call, "u_prev", shape);
  set(call, "steps", d.range(0, 7)), set(call, kWave ? "c2" : "r", d.uniform(0.02, 0.25));
  call.set_parameter("boundary", d.one_of({"fixed", "periodic"}));
}
Wants heat(const KernelCall& call) {
  const Shape s = {1, call.in_shape("u")[0], call.in_shape("u")[1]};
  const double r = call.real("r", 0.1);
  Values u = in(call, "u");
  for (int64_t t = 0; t < call.integer("steps", 1); ++t)
    u = stencil(u, s, kCross, {1 - 4 * r, r, r, r, r}, periodic(call), 1, 1);
  return {grid_want("u", u)};
}
Wants wave(const KernelCall& call) {
  const Shape s = {1, call.in_shape("u")[0], call.in_shape("u")[1]};
  const double c = call.real("c2", 0.01);
  Values u = in(call, "u"), previous = in(call, "u_prev");
  for (int64_t t = 0; t < call.integer("steps", 1); ++t) {
    Values next = stencil(u, s, kCross, {2 - 4 * c, c, c, c, c}, true, 1, 1);
    for (int64_t i = 0; i < count(u); ++i) {
      const int64_t y = i / s[2], x = i % s[2];
      next[at(i)] -= previous[at(i)];
      if (!periodic(call) && (y < 1 || y >= s[1] - 1 || x < 1 || x >= s[2] - 1)) next[at(i)] = u[at(i)];
    }
    previous = u, u = next;
  }
  return {grid_want("u", u), grid_want("u_prev", previous)};
}
template <int64_t kRank>
void draw_stencil(Draw& d, KernelCall& call) {
  Shape shape = {d.size(40), d.size(70)};
  if (kRank == 3) shape = {d.size(12), d.size(12), d.size(40)};
  d.add(call, "u", shape);
  const int64_t points = d.one_of<int64_t>({1, 4, 5, 7, 9, 27}), radius = d.range(0, 3);
  KernelTensor& offsets = call.add_input("offsets", DType::kI32, {points, kRank});
  for (int64_t i = 0; i < offsets.size(); ++i)
    offsets.data.as<int32_t>()[at(i)] = static_cast<int32_t>(d.range(-radius, radius));
  d.add_uniform(call, "coeffs", {points}, -0.5, 0.5);
  call.set_parameter("boundary", d.one_of({"fixed", "periodic"}));
}
Wants stenciled(const KernelCall& call) {
  Shape s = call.in_shape("u");
  const size_t rank = s.size();
  if (rank == 2) s.insert(s.begin(), 1);
  const Values given = in(call, "offsets");
  std::vector<Point> offsets(given.size() / rank);
  for (size_t i = 0; i < given.size(); ++i) offsets[i / rank][3 - rank + i % rank] = static_cast<int64_t>(given[i]);
  return {grid_want("y", stencil(in(call, "u"), s, offsets, in(call, "coeffs"), periodic(call),
                                 static_cast<int64_t>(max_abs(given)), 3 - rank))};
}

void draw_rk4(Draw& d, KernelCall& call) {
  const int64_t system = d.range(0, 3);
  const int64_t width = std::array<int64_t, 4>{1, 1, 2, 3}[at(system)];
  d.add(call, "y", {d.size(2000), width});
  call.set_parameter("rhs", std::array{"decay", "forced", "oscillator", "lorenz"}[at(system)]);
  set(call, "p", d.uniform(-1, 2)), set(call, "t0", d.one_of({0.0, 1.5})), set(call, "dt", d.one_of({0.01, 0.003}));
  set(call, "steps", d.range(0, 20));
}
Values slope(const std::string& system, double p, double t, const Values& y) {
  if (system == "decay") return {p * y[0]};
  if (system == "forced") return {std::cos(t) - p * y[0]};
  if (system == "oscillator") return {y[1], -p * p * y[0]};
  return {10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3 * y[2]};
}
Wants rk4(const KernelCall& call) {
  const Values start = in(call, "y");
  const int64_t width = call.in_shape("y")[1], steps = call.integer("steps", 1);
  const double p = call.real("p", -1), h = call.real("dt", 0.01);
  const std::string system = call.word("rhs", "decay");
  const auto plus = [](Values y, double factor, const Values& k) {
    for (size_t i = 0; i < y.size(); ++i) y[i] += factor * k[i];
    return y;
  };
  Values end;
  for (int64_t begin = 0; begin < count(start); begin += width) {
    Values y = part(start, begin, width);
    for (int64_t s = 0; s < steps; ++s) {
      const double t = call.real("t0", 0) + static_cast<double>(s) * h;
      const Values k1 = slope(system, p, t, y), k2 = slope(system, p, t + h / 2, plus(y, h / 2, k1)),
                   k3 = slope(system, p, t + h / 2, plus(y, h / 2, k2)), k4 = slope(system, p, t + h, plus(y, h, k3));
      y = plus(plus(plus(plus(y, h / 6, k1), h / 3, k2), h / 3, k3), h / 6, k4);
    }
    end.insert(end.end(), y.begin(), y.end());
  }
  const double error = 4e-7 * static_cast<double>(steps);
  return {{"y", end, 1e-6 + error, error * std::max(1.0, rms(end))}};
}
void draw_verlet(Draw& d, KernelCall& call) {
  const int64_t n = d.size(5000);
  for (const auto* name : {"pos", "vel", "acc"}) d.add(call, name, {n});
  set(call, "k", d.uniform(0, 3)), set(call, "dt", d.one_of({0.01, 0.05})), set(call, "steps", d.range(0, 12));
}
Wants verlet(const KernelCall& call) {
  Values x = in(call, "pos"), v = in(call, "vel"), a = in(call, "acc");
  const double h = call.real("dt", 0.01);
  for (int64_t s = 0; s < call.integer("steps", 1); ++s) {
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] += v[i] * h + a[i] * h * h / 2;
      const double next = -call.real("k", 2) * x[i];
      v[i] += (a[i] + next) * h / 2;
      a[i] = next;
    }
  }
  const auto want = [&](std::string_view name, const Values& y) {
    return Want{name, y, 1e-6, 4e-7 * static_cast<double>(call.integer("steps", 1)) * std::max(1.0, rms(y))};
  };
  return {want("pos", x), want("vel", v), want("acc", a)};
}
void draw_monte_carlo(Draw& d, KernelCall& call) {
  set(call, "n", d.size(4000, 1)), set(call, "seed", static_cast<int64_t>(d.word())),
      set(call, "stream", d.range(0, 99));
  call.set_parameter("f", d.one_of({"arctan", "quarter_circle", "gauss3"}));
}
Wants monte_carlo(const KernelCall& call) {
  const std::string f = call.word("f", "arctan");
  const size_t dims = f == "arctan" ? 1 : f == "quarter_circle" ? 2 : 3;
  const int64_t n = call.integer("n", 0);
  const auto words =
      philox_words(call.natural("seed", 0), call.natural("stream", 0), 0, n * static_cast<int64_t>(dims));
  Values values;
  for (size_t i = 0; i < at(n); ++i) {
    double square = 0;
    for (size_t e = 0; e < dims; ++e) square += std::pow((words[i * dims + e] >> 8) * 0x1p-24, 2);
    values.push_back(dims == 1 ? 4 / (1 + square) : dims == 2 ? (square <= 1 ? 4 : 0) : std::exp(-square));
  }
  const double m = mean_of(values), size = static_cast<double>(n);
  const double variance = sum_of(n, [&](size_t i) { return std::pow(values[i] - m, 2); }) / (size - 1);
  return {{"estimate", {m}, 4e-6}, {"std_error", {n > 1 ? std::sqrt(variance / size) : kNaN}, 2e-4}};
}

constexpr Oracle kScientificOracles[] = {
    {"fft_radix2", draw_power<2>, forward},
    {"fft_radix4", draw_power<4>, forward},
    {"ifft",
     [](Draw& d, KernelCall& call) {
       d.add(call, "x", {d.size(700, 1), 2});
     },
     [](const KernelCall& c) {
       const auto z = complex_input(c);
       return spectrum(transform(z, 1), 1 / static_cast<double>(z.size()));
     }},
    {"fft_real", [](Draw& d, KernelCall& call) { d.add(call, "x", {2 * d.size(400, 1)}); }, real_spectrum},
    {"spectral_power",
     [](Draw& d, KernelCall& call) {
       d.add(call, "x", {d.size(5000), 2});
       if (d.chance(0.5)) set(call, "factor", d.uniform(0.1, 3)), set(call, "one_sided", d.chance(0.5));
     },
     power},

    {"conv1d", draw_conv1d, conv1d},
    {"fft_conv1d", draw_filter<1>,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x"), h = in(c, "h");
       const int64_t outputs = c.word("mode", "full") == "full" ? count(x) + count(h) - 1 : count(x);
       return {{"y", convolved(x, h, outputs), 0, 2e-6 * norm_of(x) * norm_of(h)}};
     }},
    {"autocorrelation",
     [](Draw& d, KernelCall& call) {
       const bool whole = d.chance(0.5);
       for (float& v : d.add(call, "x", {d.size(2000, whole ? 2 : 0)})) v += 0.5f;
       set(call, "demean", whole), set(call, "normalize", whole && d.chance(0.7));
     },
     autocorrelation},
    {"cross_correlation",
     [](Draw& d, KernelCall& call) {
       d.add(call, "a", {d.size(1500, 2)}), d.add(call, "b", {d.size(1500, 2)});
       set(call, "normalize", d.chance(0.4));
     },
     cross_correlation},
    {"window_apply",
     [](Draw& d, KernelCall& call) {
       d.add(call, "x", {d.size(5000)});
       call.set_parameter("window", d.one_of({"hann", "hamming", "blackman", "rect"}));
       set(call, "periodic", d.chance(0.4));
     },
     windowed},
    {"fir_filter", draw_filter<0>,
     [](const KernelCall& c) -> Wants {
       const Values x = in(c, "x"), h = in(c, "h");
       return {{"y", convolved(x, h, count(x)), 1e-6, 2e-6 * max_abs(x) * sum_abs(h)}};
     }},

    {"spmv_csr", draw_sparse, sparse},
    {"matmul_batched", draw_matmul, matmul},
    {"matvec",
     [](Draw& d, KernelCall& call) {
       const int64_t columns = d.size(5000);
       d.add(call, "a", {d.size(60), columns}), d.add(call, "x", {columns});
     },
     matvec},
    {"triangular_solve", draw_triangle, solved},
    {"outer_product",
     [](Draw& d, KernelCall& call) {
       d.add(call, "u", {d.size(150)}, 1, Kind::kHostile), d.add(call, "v", {d.size(300)});
     },
     [](const KernelCall& c) -> Wants {
       Values y;
       for (const double u : in(c, "u")) {
         for (const double v : in(c, "v")) y.push_back(u * v);
       }
       return {{"y", y, 1.2e-7}};
     }},

    {"sim_heat_equation", draw_grid<false>, heat},
    {"sim_wave_equation", draw_grid<true>, wave},
    {"sim_stencil_2d", draw_stencil<2>, stenciled},
    {"sim_stencil_3d", draw_stencil<3>, stenciled},
    {"integrate_rk4", draw_rk4, rk4},
    {"integrate_verlet", draw_verlet, verlet},
    {"monte_carlo_integrate", draw_monte_carlo, monte_carlo},
};

}  // namespace

std::span<const Oracle> scientific_oracles() { return kScientificOracles; }

}  // namespace graft::oracle
