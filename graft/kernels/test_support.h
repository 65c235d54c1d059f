#pragma once

// Shared by the kernels' tests: deterministic data, strided matrices, and the check that every CPU level and number of
// threads gives the scalar reference's bits.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/random.h"
#include "graft/base/thread_pool.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft::test {

// Sizes around lanes, vectors and blocks of sums.
inline const std::vector<int64_t>& edge_sizes() {
  static const std::vector<int64_t> sizes = {0, 1, 2, 7, 63, 64, 65, 1000, 4095, 4096, 4097, 10000};
  return sizes;
}

template <typename T>
std::vector<T> random_values(int64_t n, uint64_t seed, double scale = 1) {
  const RandomStream stream(seed, 1);
  std::vector<T> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>((stream.uniform(i) * 2 - 1) * scale);
  return x;
}

// Values that break careless code: NaN, infinities, signed zeros, subnormals, huge and tiny magnitudes, between
// ordinary ones.
inline std::vector<float> hostile_values(int64_t n, uint64_t seed) {
  std::vector<float> x = random_values<float>(n, seed, 3);
  const float special[] = {0.0f,    -0.0f, 0x1p-149f, -0x1p-149f, 0x1.8p-130f, 1e30f, -1e30f, 1e-30f,
                           -1e-20f, 88.5f, -104.0f,   INFINITY,   -INFINITY,   NAN,   3e38f,  -1.0f};
  const RandomStream stream(seed, 2);
  for (size_t i = 0; i < x.size(); ++i) {
    const uint32_t draw = stream.word(i);
    if (draw % 8 == 0) x[i] = special[(draw >> 8) % std::size(special)];
  }
  return x;
}

// rows x columns with `gap` unused elements after every row.
template <typename T>
struct Matrix {
  Matrix(int64_t rows, int64_t columns, int64_t gap = 0)
      : values(static_cast<size_t>(rows * (columns + gap))), view(values.data(), {rows, columns}, {columns + gap, 1}) {}
  Matrix(int64_t rows, int64_t columns, int64_t gap, const std::vector<T>& source) : Matrix(rows, columns, gap) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) view(i, j) = source[static_cast<size_t>(i * columns + j)];
    }
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  View<const T, 2> in() const { return view; }
  std::vector<T> values;
  View<T, 2> view;
};

template <typename T>
void append(std::vector<float>& all, View<T, 2> x) {
  for (int64_t i = 0; i < x.extent(0); ++i) {
    for (int64_t j = 0; j < x.extent(1); ++j) all.push_back(static_cast<float>(x(i, j)));
  }
}
template <typename T>
void append(std::vector<float>& all, const std::vector<T>& x) {
  for (const T v : x) all.push_back(static_cast<float>(v));
}

// Same bits, or both NaN.
template <typename T>
bool same_bits(const T* a, const T* b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i, b + i, sizeof(T)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// Restores the CPU level that was in force.
struct LevelGuard {
  LevelGuard() = default;
  LevelGuard(const LevelGuard&) = delete;
  LevelGuard& operator=(const LevelGuard&) = delete;
  ~LevelGuard() { set_cpu_level(top); }
  const CpuLevel top = cpu_level();
};

// All bits of a double, in pieces that a float holds.
inline void append_double(std::vector<float>& all, double x) {
  const auto bits = std::bit_cast<uint64_t>(x != x ? std::numeric_limits<double>::quiet_NaN() : x);
  for (const int shift : {0, 22, 44}) all.push_back(static_cast<float>(bits >> shift & 0x3FFFFF));
}

// Thread counts to compare: 1, 2, 3, 7, or those that GRAFT_TEST_THREADS lists ("3" or "1,3"), for builds that run slowly.
inline std::vector<int> thread_counts() {
  const char* given = std::getenv("GRAFT_TEST_THREADS");
  if (given == nullptr) return {1, 2, 3, 7};
  std::vector<int> counts;
  for (const char* at = given; *at != '\0'; ++at) {
    if (*at >= '1' && *at <= '9') counts.push_back(*at - '0');
  }
  EXPECT_FALSE(counts.empty()) << "GRAFT_TEST_THREADS is '" << given << "'";
  return counts;
}

// run(context) returns every output; scalar on one thread says what is right, bit for bit (NaN counts as one pattern). Where
// `variants_differ`, each variant is compared with itself on one thread.
inline void expect_same_bits(const std::function<std::vector<float>(Context&)>& run, const std::string& what,
                             const ScratchNeed& need = {}, bool variants_differ = false) {
  const auto bits = [](float v) { return v != v ? 0x7FC00000u : std::bit_cast<uint32_t>(v); };
  const CpuLevel top = cpu_level();
  std::vector<CpuLevel> levels = cpu_levels_available();
  ThreadPool one(1);
  Context reference(one);
  reference.reserve(need);
  std::vector<std::vector<float>> wants;
  for (const CpuLevel level : levels) {
    set_cpu_level(variants_differ ? level : CpuLevel::kScalar);
    if (variants_differ || wants.empty()) wants.push_back(run(reference));
  }
  for (const int threads : thread_counts()) {
    ThreadPool pool(threads);
    Context context(pool);
    context.reserve(need);
    for (size_t l = 0; l < levels.size(); ++l) {
      const CpuLevel level = levels[l];
      const std::vector<float>& want = wants[variants_differ ? l : 0];
      set_cpu_level(level);
      const std::vector<float> got = run(context);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) {
        if (bits(got[i]) == bits(want[i])) continue;
        ADD_FAILURE() << what << ": " << cpu_level_name(level) << ", " << threads << " threads: value " << i << " is "
                      << got[i] << (variants_differ ? ", one thread has " : ", scalar has ") << want[i];
        break;
      }
    }
    set_cpu_level(top);
  }
}

// |got - want| <= tolerance relative to the largest magnitude in play.
inline void expect_close(double got, double want, double tolerance, const std::string& what) {
  EXPECT_NEAR(got, want, tolerance * std::max(1.0, std::fabs(want))) << what;
}

// Checks d(sum of upstream * outputs)/dx[i] against central differences; objective() evaluates at the current x.
inline void expect_gradient(std::vector<double>& x, const std::vector<double>& gradient,
                            const std::function<double()>& objective, const std::string& what) {
  ASSERT_EQ(x.size(), gradient.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], h = 1e-5 * std::max(1.0, std::fabs(kept));
    x[i] = kept + h;
    const double above = objective();
    x[i] = kept - h;
    const double below = objective();
    x[i] = kept;
    // 1e-6: h^2 times a third derivative of order one, plus 1e-16 / h of rounding, is near 1e-10.
    expect_close(gradient[i], (above - below) / (2 * h), 1e-6, what + " element " + std::to_string(i));
  }
}

struct TestContext {
  explicit TestContext(int threads = 2) : pool(threads), context(pool) {}
  ThreadPool pool;
  Context context;
};

}  // namespace graft::test
