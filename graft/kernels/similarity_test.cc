#include "graft/kernels/similarity.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

struct Rows {
  Rows(int64_t rows, int64_t columns, int64_t gap, double scale)
      : a(rows, columns, gap, test::random_values<float>(rows * columns, 1, scale)),
        b(rows, columns, 0, test::random_values<float>(rows * columns, 2, scale)) {}
  test::Matrix<float> a, b;
};

std::vector<float> run(Context& context, const Rows& rows, bool cosine, double eps = 1e-8) {
  std::vector<float> y(static_cast<size_t>(rows.a.view.extent(0)));
  if (cosine) {
    cosine_similarity(context, rows.a.in(), rows.b.in(), eps, y);
  } else {
    dot_batched(context, rows.a.in(), rows.b.in(), y);
  }
  return y;
}

TEST(Similarity, AgreesWithDoubles) {
  test::TestContext t(2);
  for (const auto& [count, columns] : {std::pair{3, 0}, {1, 1}, {5, 63}, {7, 131}, {3, 4097}, {2, 12289}, {300, 200}}) {
    const Rows rows(count, columns, 3, 2);
    const std::vector<float> dot = run(t.context, rows, false), cosine = run(t.context, rows, true);
    for (int64_t r = 0; r < count; ++r) {
      double ab = 0, aa = 0, bb = 0, terms = 0;
      for (int64_t c = 0; c < columns; ++c) {
        const double a = static_cast<double>(rows.a.view(r, c)), b = static_cast<double>(rows.b.view(r, c));
        ab += a * b, aa += a * a, bb += b * b, terms += std::fabs(a * b);
      }
      // Bounds of the specification.
      EXPECT_NEAR(dot[static_cast<size_t>(r)], ab, 1e-6 * std::fabs(ab) + 2e-6 * terms);
      const double want = ab / std::max(std::sqrt(aa), 1e-8) / std::max(std::sqrt(bb), 1e-8);
      EXPECT_NEAR(cosine[static_cast<size_t>(r)], want, 1e-6 * std::fabs(want) + 2e-6);
    }
  }
}

TEST(Similarity, OneResultEverywhere) {
  for (const int64_t columns : {1, 17, 64, 100, 4096, 5000}) {
    const Rows rows(columns > 1000 ? 9 : 301, columns, 1, 1);
    for (const bool cosine : {false, true}) {
      test::expect_same_bits([&](Context& context) { return run(context, rows, cosine); }, "rows");
    }
  }
}

TEST(Similarity, Edges) {
  test::TestContext t(1);
  const std::vector<float> a = {0, 0, 3, 4, 1e-9f, 0, 3, 4, NAN, 1, INFINITY, 1};
  const std::vector<float> b = {1, 2, 3, 4, 1e-9f, 0, -6, -8, 1, 1, 1, 1};
  std::vector<float> y(6);
  const View<const float, 2> x(a.data(), 6, 2), z(b.data(), 6, 2);
  cosine_similarity(t.context, x, z, 1e-8, y);
  EXPECT_EQ(y[0], 0.0f);                   // a row of zeros
  EXPECT_EQ(y[1], 1.0f);                   // itself
  EXPECT_NEAR(y[2], 1e-18 / 1e-16, 1e-8);  // both norms are below eps and are lifted to it
  EXPECT_EQ(y[3], -1.0f);
  EXPECT_TRUE(std::isnan(y[4]) && std::isnan(y[5]));
  dot_batched(t.context, x, z, y);
  EXPECT_EQ(y[1], 25.0f);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], INFINITY);
  dot_batched(t.context, View<const float, 2>(a.data(), 0, 2), View<const float, 2>(b.data(), 0, 2), {});
}

TEST(Similarity, WrongShapesAreErrors) {
  for (const char* name : {"dot_batched", "cosine_similarity"}) {
    const KernelInfo& kernel = *find_kernel(name);
    KernelCall none, differ, flat;
    EXPECT_THROW(kernel.prepare(none), Error);
    differ.add_input("a", DType::kF32, {2, 3});
    differ.add_input("b", DType::kF32, {3, 2});
    EXPECT_THROW(kernel.prepare(differ), Error);
    flat.add_input("a", DType::kF32, {6});
    flat.add_input("b", DType::kF32, {6});
    EXPECT_THROW(kernel.prepare(flat), Error);
  }
  KernelCall call;
  find_kernel("cosine_similarity")->example(call, 10, 1);
  call.set_parameter("eps", "0");
  EXPECT_THROW(find_kernel("cosine_similarity")->prepare(call), Error);
}

}  // namespace
}  // namespace graft
