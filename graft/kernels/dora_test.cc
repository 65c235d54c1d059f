#include "graft/kernels/dora.h"

#include <gtest/gtest.h>

#include "graft/kernels/gemm_test_util.h"

namespace graft {
namespace {

using test::GemmMatrix;

struct DoraCase {
  int64_t out, in, rank;
};
constexpr DoraCase kDoraCases[] = {{1, 1, 1},    {33, 63, 4},  {70, 65, 16}, {13, 600, 8},
                                   {5, 4096, 3}, {6, 5000, 2}, {3, 40, 520}};

TEST(Dora, NormOfAdaptedRowsIsNearFloat64AndTheSameOnEveryLevel) {
  const test::LevelGuard guard;
  for (const DoraCase& c : kDoraCases) {
    test::Uniform random(static_cast<uint64_t>(c.in));
    const GemmMatrix<float> w = random.matrix<float>(c.out, c.in), a = random.matrix<float>(c.rank, c.in, 1),
                            b = random.matrix<float>(c.out, c.rank, 2);
    const float scaling = 0.7f;
    std::vector<float> first;
    for (CpuLevel level : cpu_levels_available()) {
      set_cpu_level(level);
      for (int threads : {1, 3}) {
        ThreadPool pool(threads);
        Context context(pool);
        context.reserve(dora_norm_scratch(threads, c.in, c.rank));
        for (int form = 0; form < 2; ++form) {
          const Weight packed = test::pack(context, DType::kF32, w);
          const Operand<float> operand = form == 0 ? Operand<float>{nullptr, w.cview()} : Operand<float>{&packed, {}};
          std::vector<float> norm(static_cast<size_t>(c.out), NAN);
          dora_norm<float>(context, operand, a.cview(), b.cview(), scaling, norm);
          if (first.empty()) first = norm;
          ASSERT_TRUE(test::same_bits(norm, first)) << cpu_level_name(level) << " threads " << threads;
        }
      }
    }
    for (int64_t o = 0; o < c.out; ++o) {
      double sum = 0;
      for (int64_t k = 0; k < c.in; ++k) {
        double update = 0;
        for (int64_t r = 0; r < c.rank; ++r) {
          update += static_cast<double>(b.at(o, r)) * static_cast<double>(a.at(r, k));
        }
        const double v = static_cast<double>(w.at(o, k)) + static_cast<double>(scaling) * update;
        sum += v * v;
      }
      // Rounding of v (rank + 2 steps) is averaged over the row; the sum has 64-lane chains.
      EXPECT_NEAR(first[static_cast<size_t>(o)], std::sqrt(sum), 4e-6 * std::sqrt(sum)) << c.in;
    }
  }
}

TEST(Dora, ColumnNormIsTheSameOnEveryLevelAndThreadCount) {
  const test::LevelGuard guard;
  for (const DoraCase& c : {DoraCase{600, 70, 3}, DoraCase{255, 129, 8}, DoraCase{1, 5, 1}}) {
    test::Uniform random(static_cast<uint64_t>(c.in));
    const GemmMatrix<float> w = random.matrix<float>(c.out, c.in), a = random.matrix<float>(c.out, c.rank),
                            b = random.matrix<float>(c.in, c.rank);
    std::vector<float> first;
    for (CpuLevel level : cpu_levels_available()) {
      set_cpu_level(level);
      for (int threads : {1, 3}) {
        ThreadPool pool(threads);
        Context context(pool);
        context.reserve(dora_column_norm_scratch(c.in, c.rank));
        const Weight packed = test::pack(context, DType::kF32, w);
        for (const Operand<float>& operand : {Operand<float>{nullptr, w.cview()}, Operand<float>{&packed, {}}}) {
          std::vector<float> norm(static_cast<size_t>(c.in), NAN);
          dora_column_norm<float>(context, operand, a.cview(), b.cview(), 0.7f, norm);
          if (first.empty()) first = norm;
          ASSERT_TRUE(test::same_bits(norm, first)) << cpu_level_name(level) << " threads " << threads;
        }
      }
    }
  }
}

TEST(Dora, MergeAddsTheUpdateAndScalesRows) {
  const test::LevelGuard guard;
  for (const DoraCase& c : kDoraCases) {
    test::Uniform random(static_cast<uint64_t>(c.in) + 50);
    const GemmMatrix<float> w = random.matrix<float>(c.out, c.in), a = random.matrix<float>(c.rank, c.in),
                            b = random.matrix<float>(c.out, c.rank);
    std::vector<float> magnitude;
    for (int64_t o = 0; o < c.out; ++o) magnitude.push_back(1.0f + random.next() / 2);
    for (bool dora : {false, true}) {
      GemmMatrix<float> first;
      for (CpuLevel level : cpu_levels_available()) {
        set_cpu_level(level);
        ThreadPool pool(2);
        Context context(pool);
        GemmMatrix<float> merged(c.out, c.in), in_place = w;
        const std::span<const float> rows = dora ? std::span<const float>(magnitude) : std::span<const float>();
        merge_rows(context, w.cview(), a.cview(), b.cview(), 0.5f, rows, merged.view());
        merge_rows(context, in_place.cview(), a.cview(), b.cview(), 0.5f, rows, in_place.view());
        ASSERT_TRUE(test::same_bits(merged.values, in_place.values));
        if (first.rows == 0) first = merged;
        ASSERT_TRUE(test::same_bits(merged.values, first.values)) << cpu_level_name(level);
      }
      for (int64_t o = 0; o < c.out; ++o) {
        std::vector<double> v;
        double sum = 0;
        for (int64_t k = 0; k < c.in; ++k) {
          double update = 0;
          for (int64_t r = 0; r < c.rank; ++r) {
            update += static_cast<double>(b.at(o, r)) * static_cast<double>(a.at(r, k));
          }
          v.push_back(static_cast<double>(w.at(o, k)) + 0.5 * update);
          sum += v.back() * v.back();
        }
        const double factor = dora ? static_cast<double>(magnitude[static_cast<size_t>(o)]) / std::sqrt(sum) : 1.0;
        for (int64_t k = 0; k < c.in; ++k) {
          const double want = factor * v[static_cast<size_t>(k)];
          // rank roundings of terms of size 1, scaled as the result is
          EXPECT_NEAR(first.at(o, k), want,
                      4e-6 * std::fabs(want) + factor * 1e-6 * std::sqrt(static_cast<double>(c.rank)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace graft
