#include "graft/kernels/linalg.h"

#include "graft/kernels/gemm.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> multiply(const std::vector<float>& a, const std::vector<float>& b, int64_t batch, int64_t rows,
                            int64_t summed, int64_t columns) {
  std::vector<float> c(static_cast<size_t>(batch * rows * columns), 7);
  test::TestContext t(2);
  t.context.reserve(matmul_batched_scratch(rows, summed, columns));
  matmul_batched(t.context, View<const float, 3>(a.data(), batch, rows, summed),
                 View<const float, 3>(b.data(), batch, summed, columns),
                 View<float, 3>(c.data(), batch, rows, columns));
  return c;
}

// The product that trains and the product of a batch are one: the same bits.
TEST(Linalg, BatchedProductIsTrainingsProduct) {
  const int64_t sizes[][4] = {{1, 1, 1, 1},     {3, 5, 7, 17},     {2, 33, 65, 31},   {2, 13, 600, 40},
                              {1, 400, 70, 70}, {2, 20, 1024, 64}, {5, 12, 128, 128}, {1, 100, 1100, 9}};
  for (const auto& [batch, rows, summed, columns] : sizes) {
    const std::vector<float> a = test::random_values<float>(batch * rows * summed, 1),
                             b = test::random_values<float>(batch * summed * columns, 2);
    const std::vector<float> got = multiply(a, b, batch, rows, summed, columns);
    test::TestContext t(2);
    t.context.reserve(matmul_scratch(2, rows, summed, columns));
    std::vector<float> want(got.size());
    for (int64_t i = 0; i < batch; ++i) {
      const MatmulSource<float> source{
          View<const float, 2>(a.data() + i * rows * summed, rows, summed),
          {nullptr, View<const float, 2>(b.data() + i * summed * columns, summed, columns)}};
      matmul_nn<float>(t.context, Compute::kF32, {&source, 1}, false,
                       View<float, 2>(want.data() + i * rows * columns, rows, columns));
    }
    EXPECT_EQ(got, want) << batch << " " << rows << " " << summed << " " << columns;
  }
}

TEST(Linalg, NothingToMultiply) {
  EXPECT_EQ(multiply({}, {}, 2, 3, 0, 4), std::vector<float>(24, 0));
  EXPECT_TRUE(multiply({}, {}, 0, 3, 4, 5).empty());
  EXPECT_TRUE(multiply({}, std::vector<float>(8, 1), 1, 0, 2, 4).empty());
  EXPECT_TRUE(multiply(std::vector<float>(8, 1), {}, 1, 4, 2, 0).empty());
}

TEST(Linalg, ProductsAgreeWithTheFormula) {
  constexpr int64_t kRows = 37, kColumns = 9001;  // three blocks of a sum
  const std::vector<float> a = test::random_values<float>(kRows * kColumns, 3),
                           x = test::random_values<float>(kColumns, 4);
  std::vector<float> y(kRows);
  test::TestContext t(2);
  matvec(t.context, View<const float, 2>(a.data(), kRows, kColumns), x, y);
  for (int64_t r = 0; r < kRows; ++r) {
    double sum = 0, size = 0;
    for (int64_t c = 0; c < kColumns; ++c) {
      const double term = static_cast<double>(a[static_cast<size_t>(r * kColumns + c)]) *
                          static_cast<double>(x[static_cast<size_t>(c)]);
      sum += term, size += std::fabs(term);
    }
    EXPECT_NEAR(y[static_cast<size_t>(r)], sum, 2e-6 * size);
  }
  std::vector<float> none(3, 7);
  matvec(t.context, View<const float, 2>(a.data(), 3, 0), {}, none);
  EXPECT_EQ(none, std::vector<float>(3, 0));
}

// What lies beyond a row or a tail is never touched: a NaN there does not show.
TEST(Linalg, NothingBeyondARowEnters) {
  test::TestContext t(1);
  for (int64_t columns = 1; columns <= 130; ++columns) {
    std::vector<float> a(static_cast<size_t>(2 * columns + 64), kNaN), x(static_cast<size_t>(columns + 64), kNaN), y(2);
    std::fill_n(a.begin(), 2 * columns, 1.0f);
    std::fill_n(x.begin(), columns, 2.0f);
    matvec(t.context, View<const float, 2>(a.data(), 2, columns),
           std::span<const float>(x).first(static_cast<size_t>(columns)), y);
    EXPECT_EQ(y, std::vector<float>(2, 2 * static_cast<float>(columns)));
  }
}

TEST(Linalg, SparseRows) {
  // Rows: one entry; none; repeated columns; 40 entries of one column.
  std::vector<float> values = {3, 1, 2, 4};
  std::vector<uint32_t> columns = {1, 0, 0, 2}, rows = {0, 1, 1, 4, 44};
  for (int i = 0; i < 40; ++i) {
    values.push_back(1);
    columns.push_back(2);
  }
  const std::vector<float> x = {10, 20, 30};
  std::vector<float> y(4, 7);
  test::TestContext t(2);
  spmv_csr(t.context, {values, columns, rows}, x, y);
  EXPECT_EQ(y, (std::vector<float>{60, 0, 150, 1200}));
  spmv_csr(t.context, {{}, {}, std::vector<uint32_t>{0}}, x, {});
}

// An entry that is not there does not meet x[0].
TEST(Linalg, SparseTailsLeaveInfinityAlone) {
  const std::vector<float> values(17, 1.0f), x = {kInfinity, 1};
  const std::vector<uint32_t> columns(17, 1), rows = {0, 17};
  std::vector<float> y(1);
  test::TestContext t(1);
  spmv_csr(t.context, {values, columns, rows}, x, y);
  EXPECT_EQ(y[0], 17);
}

struct System {
  int64_t n, m;
  std::vector<float> a, b;
};
System system_of(int64_t n, int64_t m, Triangle triangle, uint64_t seed) {
  System s{n, m, test::random_values<float>(n * n, seed, 1 / std::sqrt(static_cast<double>(n))),
           test::random_values<float>(n * m, seed + 1)};
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float& a = s.a[static_cast<size_t>(i * n + j)];
      if (i == j) {
        a = triangle.unit_diagonal ? kNaN : std::copysign(1 + std::fabs(a), a);
      } else if ((j > i) == triangle.lower) {
        a = kNaN;  // the half that is never read
      }
    }
  }
  return s;
}
std::vector<float> solve(const System& s, Triangle triangle, int threads = 2) {
  std::vector<float> x = s.b;  // in place
  test::TestContext t(threads);
  t.context.reserve(triangular_solve_scratch(s.n, s.m));
  triangular_solve(t.context, View<const float, 2>(s.a.data(), s.n, s.n), View<const float, 2>(x.data(), s.n, s.m),
                   triangle, View<float, 2>(x.data(), s.n, s.m));
  return x;
}

TEST(Linalg, SolutionsSatisfyTheSystem) {
  for (const int64_t n : {1, 7, 63, 64, 65, 200, 500}) {
    for (const int64_t m : {1, 3, 4, 9, 30}) {
      for (const Triangle triangle : {Triangle{true, false}, {true, true}, {false, false}, {false, true}}) {
        const System s = system_of(n, m, triangle, static_cast<uint64_t>(n + m));
        const std::vector<float> x = solve(s, triangle);
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t c = 0; c < m; ++c) {
            double sum = 0;
            for (int64_t j = triangle.lower ? 0 : i; j < (triangle.lower ? i + 1 : n); ++j) {
              const double a =
                  i == j && triangle.unit_diagonal ? 1 : static_cast<double>(s.a[static_cast<size_t>(i * n + j)]);
              sum += a * static_cast<double>(x[static_cast<size_t>(j * m + c)]);
            }
            // Backward stable: a few roundings of terms of size one (|x| stays below 10 here).
            ASSERT_NEAR(sum, s.b[static_cast<size_t>(i * m + c)], 2e-5) << n << " " << m << " row " << i;
          }
        }
      }
    }
  }
}

// Few columns go block by block over the threads, many each on their own: a column's bits are the same.
TEST(Linalg, AColumnDoesNotDependOnTheOthers) {
  const System all = system_of(300, 40, {}, 5);
  const std::vector<float> x = solve(all, {});
  System one{300, 1, all.a, {}};
  for (int64_t i = 0; i < 300; ++i) one.b.push_back(all.b[static_cast<size_t>(i * 40 + 17)]);
  const std::vector<float> y = solve(one, {}, 3);
  for (int64_t i = 0; i < 300; ++i) ASSERT_EQ(y[static_cast<size_t>(i)], x[static_cast<size_t>(i * 40 + 17)]);
}

TEST(Linalg, ZeroPivotsGiveInfinityOrNaN) {
  const std::vector<float> x = solve({2, 1, {0, 0, 1, 1}, {1, 1}}, {});
  EXPECT_EQ(x, (std::vector<float>{kInfinity, -kInfinity}));
  EXPECT_TRUE(std::isnan(solve({1, 1, {0}, {0}}, {})[0]));
  EXPECT_TRUE(solve({0, 0, {}, {}}, {}).empty());
}

TEST(Linalg, LargeOuterProductsStoreEveryElement) {
  constexpr int64_t kRows = 2200, kColumns = 3821;  // 8.4 M elements: past the cache; rows begin anywhere in a line
  const std::vector<float> u = test::random_values<float>(kRows, 1), v = test::random_values<float>(kColumns, 2);
  std::vector<float> y(kRows * kColumns, kNaN);
  test::TestContext t(3);
  outer_product(t.context, u, v, View<float, 2>(y.data(), kRows, kColumns));
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) {
      ASSERT_EQ(y[static_cast<size_t>(i * kColumns + j)], u[static_cast<size_t>(i)] * v[static_cast<size_t>(j)]);
    }
  }
}

TEST(Linalg, WrongCallsAreErrors) {
  const auto prepare = [](std::string_view name, std::vector<std::pair<std::string, std::vector<int64_t>>> inputs) {
    KernelCall call;
    for (auto& [input, shape] : inputs) call.add_input(input, DType::kF32, shape);
    find_kernel(name)->prepare(call);
  };
  EXPECT_THROW(prepare("matmul_batched", {{"a", {2, 3, 4}}, {"b", {2, 5, 4}}}), Error);
  EXPECT_THROW(prepare("matmul_batched", {{"a", {2, 3, 4}}, {"b", {1, 4, 4}}}), Error);
  EXPECT_THROW(prepare("matmul_batched", {{"a", {3, 4}}, {"b", {4, 4}}}), Error);
  EXPECT_THROW(prepare("matvec", {{"a", {3, 4}}, {"x", {3}}}), Error);
  EXPECT_THROW(prepare("triangular_solve", {{"a", {3, 4}}, {"b", {3, 1}}}), Error);
  EXPECT_THROW(prepare("triangular_solve", {{"a", {3, 3}}, {"b", {2, 1}}}), Error);
  EXPECT_THROW(prepare("outer_product", {{"u", {3}}}), Error);
  const auto sparse = [](std::vector<uint32_t> rows, std::vector<uint32_t> columns, int64_t values) {
    KernelCall call;
    call.add_input("values", DType::kF32, {values});
    call.add_input("x", DType::kF32, {4});
    KernelTensor& c = call.add_input("col_idx", DType::kU32, {static_cast<int64_t>(columns.size())});
    std::copy(columns.begin(), columns.end(), c.data.as<uint32_t>().begin());
    KernelTensor& r = call.add_input("row_ptr", DType::kU32, {static_cast<int64_t>(rows.size())});
    std::copy(rows.begin(), rows.end(), r.data.as<uint32_t>().begin());
    find_kernel("spmv_csr")->prepare(call);
  };
  EXPECT_NO_THROW(sparse({0, 1, 2}, {0, 3}, 2));
  EXPECT_THROW(sparse({0, 1, 2}, {0, 4}, 2), Error);     // no column 4
  EXPECT_THROW(sparse({0, 1, 3}, {0, 3}, 2), Error);     // beyond the entries
  EXPECT_THROW(sparse({1, 1, 2}, {0, 3}, 2), Error);     // begins late
  EXPECT_THROW(sparse({0, 2, 1, 2}, {0, 3}, 2), Error);  // falls
  EXPECT_THROW(sparse({}, {}, 0), Error);
  EXPECT_THROW(sparse({0, 2}, {0, 3}, 3), Error);
}

}  // namespace
}  // namespace graft
