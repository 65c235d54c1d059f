#pragma once

// Shared by the float64 oracles of the kernels (oracle_*_test.cc): random calls, and what a kernel must give for one. Written from
// spec/kernels.md and nothing of the kernels' own code.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/float16.h"
#include "graft/base/random.h"
#include "graft/kernels/kernel_call.h"

namespace graft::oracle {

using Values = std::vector<double>;
using Shape = std::vector<int64_t>;

inline size_t at(int64_t i) { return static_cast<size_t>(i); }
inline int64_t count(const Values& x) { return static_cast<int64_t>(x.size()); }
inline int64_t elements(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// What values a vector has.
enum class Kind { kPlain, kOffset, kTies, kNan, kInfinite, kHostile };

// The draws of one case, by its number.
class Draw {
 public:
  explicit Draw(uint64_t number) : stream_(number, stream_hash("oracle")) {}

  uint32_t word() { return stream_.word(next_++); }
  double uniform(double low, double high) { return low + (high - low) * stream_.uniform53(next_++); }
  double normal() {
    const double u = 1 - uniform(0, 1);
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * uniform(0, 1));
  }
  int64_t range(int64_t low, int64_t high) {  // both may come
    return low + static_cast<int64_t>(word() % static_cast<uint32_t>(high - low + 1));
  }
  bool chance(double p) { return uniform(0, 1) < p; }
  template <typename T>
  T one_of(std::initializer_list<T> all) {
    return all.begin()[range(0, static_cast<int64_t>(all.size()) - 1)];
  }
  // A length of `least` to `most`: none, one, primes, beside powers of two, or any (small ones more often).
  int64_t size(int64_t most, int64_t least = 0) {
    int64_t n = 0;
    switch (range(0, 5)) {
      case 0: n = range(0, 2); break;
      case 1: n = one_of<int64_t>({3, 7, 13, 31, 61, 127, 509, 1021, 2039, 4093, 8191}); break;
      case 2: n = (int64_t{1} << range(1, 13)) + range(-1, 1); break;
      default: n = static_cast<int64_t>(std::exp(uniform(0, std::log(static_cast<double>(most) + 1)))); break;
    }
    return std::clamp(n > most ? n % (most + 1) : n, least, most);
  }
  Kind kind(std::initializer_list<Kind> special) { return chance(0.4) ? Kind::kPlain : one_of(special); }

  // An f32 input of normals times `scale`, with what `kind` puts between them.
  std::span<float> add(KernelCall& call, std::string_view name, Shape shape, double scale = 1,
                       Kind kind = Kind::kPlain) {
    KernelTensor& t = call.add_input(name, DType::kF32, std::move(shape));
    const std::span<float> x = t.data.as<float>().first(at(t.size()));
    constexpr float kHostile[] = {0.0f,    -0.0f, 0x1p-149f, -0x1p-149f, 0x1.8p-130f, 1e30f, -1e30f,
                                  1e-30f,  3e38f, -1.0f,     -1e-20f,    88.5f,       88.8f, -88.5f,
                                  -104.0f, 20.0f, -20.0f,    1.0f,       0x1.fp-127f};
    for (float& v : x) {
      v = static_cast<float>(scale * normal());
      if (kind == Kind::kTies) v = static_cast<float>(range(-3, 3));
      if (kind == Kind::kOffset) v += static_cast<float>(1000 * scale);
      const bool mark = chance(0.05);
      if (kind == Kind::kNan && mark) v = std::numeric_limits<float>::quiet_NaN();
      if (kind == Kind::kInfinite && mark) v = one_of({1.0f, 1.0f, -1.0f}) * std::numeric_limits<float>::infinity();
      if (kind == Kind::kHostile && chance(0.3)) v = kHostile[range(0, std::size(kHostile) - 1)];
      if (kind == Kind::kHostile && mark) v = one_of({kInf, -kInf, kNaN});
    }
    return x;
  }
  std::span<float> add_uniform(KernelCall& call, std::string_view name, Shape shape, double low, double high) {
    const std::span<float> x = add(call, name, std::move(shape));
    for (float& v : x) v = static_cast<float>(uniform(low, high));
    return x;
  }
  void add_mask(KernelCall& call, std::string_view name, Shape shape, double share) {
    KernelTensor& t = call.add_input(name, DType::kU8, std::move(shape));
    for (int64_t i = 0; i < t.size(); ++i)
      t.data.as<uint8_t>()[at(i)] = chance(share) ? static_cast<uint8_t>(one_of({1, 1, 255})) : uint8_t{0};
  }
  void add_half(KernelCall& call, std::string_view name, Shape shape, double scale = 1) {
    KernelTensor& t = call.add_input(name, DType::kF16, std::move(shape));
    for (int64_t i = 0; i < t.size(); ++i) t.data.as<f16>()[at(i)] = to_f16(static_cast<float>(scale * normal()));
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

inline void set(KernelCall& call, std::string_view name, double value) {
  call.set_parameter(name, fmt::format("{}", value));
}
inline void set(KernelCall& call, std::string_view name, int64_t value) {
  call.set_parameter(name, fmt::format("{}", value));
}
inline void set(KernelCall& call, std::string_view name, bool value) {
  call.set_parameter(name, value ? "true" : "false");
}

// A value of a tensor.
inline double value_at(const KernelTensor& t, size_t i) {
  switch (t.dtype) {
    case DType::kF32: return static_cast<double>(t.data.as<float>()[i]);
    case DType::kF16: return static_cast<double>(to_float(t.data.as<f16>()[i]));
    case DType::kI8: return t.data.as<int8_t>()[i];
    case DType::kU8: return t.data.as<uint8_t>()[i];
    case DType::kI32: return t.data.as<int32_t>()[i];
    default: return t.data.as<uint32_t>()[i];
  }
}
// An input as doubles.
inline Values in(const KernelCall& call, std::string_view name) {
  const KernelTensor& t = call.inputs().find(name)->second;
  Values x(at(t.size()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = value_at(t, i);
  return x;
}

// Sums in long double: exact to 1e-16 for what is met here.
template <typename F>
double sum_of(int64_t n, F&& term) {
  long double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<long double>(term(at(i)));
  return static_cast<double>(sum);
}
inline double sum_of(const Values& x) {
  return sum_of(count(x), [&](size_t i) { return x[i]; });
}
inline double sum_abs(const Values& x) {
  return sum_of(count(x), [&](size_t i) { return std::fabs(x[i]); });
}
inline double mean_of(const Values& x) { return x.empty() ? kNaN : sum_of(x) / static_cast<double>(x.size()); }
inline double max_abs(const Values& x) {  // of the finite ones
  double most = 0;
  for (const double v : x) most = std::isfinite(v) ? std::max(most, std::fabs(v)) : most;
  return most;
}
inline double rms(const Values& x) {
  double sum = 0, n = 0;
  for (const double v : x) {
    if (std::isfinite(v)) sum += v * v, n += 1;
  }
  return n > 0 ? std::sqrt(sum / n) : 0;
}
// Part [begin, begin + n) of x.
inline Values part(const Values& x, int64_t begin, int64_t n) { return {x.begin() + begin, x.begin() + begin + n}; }

// Rows of [rows, columns]: f(row) appended.
template <typename F>
Values rows_of(const KernelCall& call, std::string_view name, F&& f) {
  const Values x = in(call, name);
  const int64_t columns = call.in_shape(name).back();
  Values y;
  for (int64_t i = 0; i < count(x); i += columns) {
    const Values row = f(part(x, i, columns));
    y.insert(y.end(), row.begin(), row.end());
  }
  return y;
}

// What an output must be: |got - want| <= absolute + relative |want|; NaN for NaN, infinities by sign.
struct Want {
  std::string_view name;
  Values values;
  double relative = 0, absolute = 0;
};
using Wants = std::vector<Want>;

struct Oracle {
  std::string_view kernel;
  void (*draw)(Draw& draw, KernelCall& call);
  Wants (*want)(const KernelCall& call);
};

std::span<const Oracle> vector_oracles();      // reductions, maps, scans, compaction, correlation
std::span<const Oracle> order_oracles();       // sorting, selection, layout, quantization, random numbers
std::span<const Oracle> training_oracles();    // softmax, norms, losses, optimizers
std::span<const Oracle> attention_oracles();   // attention, positions
std::span<const Oracle> scientific_oracles();  // transforms, signals, linear algebra, simulation

// Shared by more than one family.
Values softmax_row(const Values& x);
double log_sum_exp(const Values& x);
// Words first ... first + n - 1 of a Philox stream, shifted to 24 bits.
inline std::vector<uint32_t> philox_words(uint64_t seed, uint64_t stream, uint64_t first, int64_t n) {
  std::vector<uint32_t> words;
  for (uint64_t i = first; i < first + static_cast<uint64_t>(n); ++i) {
    const uint64_t b = i / 4;
    words.push_back(philox4x32({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                               {static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32), static_cast<uint32_t>(stream),
                                static_cast<uint32_t>(stream >> 32)})[i % 4]);
  }
  return words;
}

}  // namespace graft::oracle
