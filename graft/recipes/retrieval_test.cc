#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/recipes/recipes.h"
#include "graft/recipes/test_support.h"

namespace graft {
namespace {

using test::Call;
using test::random;
using test::Values;

struct Top {
  Values values;
  std::vector<int32_t> indices;
};
Top top_of(Context& context, const Values& x, int64_t k) {
  Call call(context, "topk_select");
  call.in("x", x).set("k", fmt::format("{}", k));
  Top top{call.out("values"), {}};
  top.indices = call.out<int32_t>("indices");
  return top;
}

TEST(Recipes, RecommendationsAreTheirKernels) {
  test::TestContext t(2);
  constexpr int64_t kUsers = 20, kItems = 300, kD = 24, kTop = 5;
  const Values users = random(kUsers * kD, 1), items = random(kItems * kD, 2);
  const View<const float, 2> u(users.data(), kUsers, kD), v(items.data(), kItems, kD);
  const std::vector<int32_t> asked = {7, 0, 19, 7}, some = {250, 3, 99, 17, 40, 3, 8};
  const auto check = [&](const Recommendation& got, size_t user, const Values& scores,
                         const std::vector<int32_t>& ids) {
    const Top top = top_of(t.context, scores, kTop);
    const float most = std::max(std::fabs(top.values.front()), std::fabs(top.values.back()));
    const Values scaled = Call(t.context, "map_div").in("a", top.values).in("b", Values(kTop, most)).out("y");
    for (size_t i = 0; i < kTop; ++i) {
      EXPECT_EQ(got.scores[user * kTop + i], scaled[i]);
      EXPECT_EQ(got.items[user * kTop + i], ids[static_cast<size_t>(top.indices[i])]);
    }
  };
  Values chosen, turned, rows;
  for (const int32_t a : asked) chosen.insert(chosen.end(), u.row(a), u.row(a) + kD);
  for (int64_t d = 0; d < kD; ++d) {
    for (int64_t i = 0; i < kItems; ++i) turned.push_back(v(i, d));
  }
  for (const int32_t i : some) rows.insert(rows.end(), v.row(i), v.row(i) + kD);
  const Values all =
      Call(t.context, "matmul_batched").in("a", chosen, {1, 4, kD}).in("b", turned, {1, kD, kItems}).out("c");
  std::vector<int32_t> every(kItems);
  for (size_t i = 0; i < every.size(); ++i) every[i] = static_cast<int32_t>(i);
  const Recommendation dense = recommendation(t.context, u, v, asked, {}, kTop),
                       sparse = recommendation(t.context, u, v, asked, some, kTop);
  for (size_t i = 0; i < asked.size(); ++i) {
    check(dense, i,
          Values(all.begin() + static_cast<int64_t>(i) * kItems, all.begin() + static_cast<int64_t>(i + 1) * kItems),
          every);
    Values repeated;
    for (size_t r = 0; r < some.size(); ++r) repeated.insert(repeated.end(), u.row(asked[i]), u.row(asked[i]) + kD);
    check(sparse, i, Call(t.context, "dot_batched").in("a", repeated, {7, kD}).in("b", rows, {7, kD}).out("y"), some);
  }
  EXPECT_EQ(dense.scores[0], 1);
  // One user who likes what all items lack: scores keep their sign and order.
  const Values taste = {1}, lack = {-2, -4, -1};
  const Recommendation worst = recommendation(t.context, View<const float, 2>(taste.data(), 1, 1),
                                              View<const float, 2>(lack.data(), 3, 1), std::vector<int32_t>{0}, {}, 3);
  EXPECT_EQ(worst.items, (std::vector<int32_t>{2, 0, 1}));
  EXPECT_EQ(worst.scores, (Values{-0.25f, -0.5f, -1}));
  EXPECT_TRUE(recommendation(t.context, u, v, {}, {}, kTop).items.empty());
  EXPECT_THROW(recommendation(t.context, u, v, std::vector<int32_t>{20}, {}, 1), Error);
  EXPECT_THROW(recommendation(t.context, u, v, asked, std::vector<int32_t>{300}, 1), Error);
  EXPECT_THROW(recommendation(t.context, u, v, asked, {}, 301), Error);
}

std::vector<f16> halves(const Values& x) {
  std::vector<f16> y;
  for (const float v : x) y.push_back(to_f16(v));
  return y;
}

// Every row scored by single kernels: the bound must not change a bit of the result.
Top search_all(Context& context, const std::vector<f16>& vectors, const Values& query, int64_t k) {
  const auto d = static_cast<int64_t>(query.size()), rows = static_cast<int64_t>(vectors.size()) / d;
  Call quantize(context, "quantize_f16_to_i8");
  quantize.in("x", vectors, {rows, d});
  const auto half = Call(context, "dequantize_i8_to_f16")
                        .in("q", quantize.out<int8_t>("q"), {rows, d})
                        .in("scale", quantize.out("scale"))
                        .out<f16>("x");
  Values values, repeated;
  for (const f16 v : half) values.push_back(to_float(v));
  for (int64_t r = 0; r < rows; ++r) repeated.insert(repeated.end(), query.begin(), query.end());
  return top_of(context, Call(context, "dot_batched").in("a", repeated, {rows, d}).in("b", values, {rows, d}).out("y"),
                k);
}

TEST(Recipes, VectorSearchIsItsKernels) {
  test::TestContext t(2);
  constexpr int64_t kRows = 2000, kD = 48, kTop = 10;
  for (const double spread : {0.0, 2.0}) {  // rows of about one length, and of lengths from e^-2 to e^2
    Values x = random(kRows * kD, 1);
    const Values lengths = random(kRows, 2, spread);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= std::exp(lengths[i / kD]);
    for (size_t i = 0; i < kD; ++i) x[kD + i] = 0, x[9 * kD + i] = x[5 * kD + i];
    const std::vector<f16> vectors = halves(x);
    const VectorIndex index = vector_index(t.context, View<const f16, 2>(vectors.data(), kRows, kD));
    Values query(x.begin() + 5 * kD, x.begin() + 6 * kD);
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Neighbours got = vector_search(t.context, index, query, kTop);
      const Top want = search_all(t.context, vectors, query, kTop);
      EXPECT_EQ(got.ids, want.indices);
      EXPECT_EQ(got.scores, want.values);
      EXPECT_GE(got.candidates, kTop);
      if (spread > 0) {
        EXPECT_LT(got.candidates, kRows);
      }
      query = random(kD, static_cast<uint64_t>(10 + repeat));
    }
    // All of them; scores of the row of zeros are 0.
    const Neighbours all = vector_search(t.context, index, query, 2 * kRows);
    EXPECT_EQ(all.ids, search_all(t.context, vectors, query, kRows).indices);
    EXPECT_EQ(all.candidates, kRows);
  }
}

TEST(Recipes, VectorSearchFindsTheNearest) {
  test::TestContext t(2);
  constexpr int64_t kRows = 500, kD = 32;
  Values x = random(kRows * kD, 3);
  for (int64_t r = 0; r < kRows; ++r) {  // unit rows: the largest product is the nearest
    double square = 0;
    for (int64_t c = 0; c < kD; ++c) square += std::pow(static_cast<double>(x[static_cast<size_t>(r * kD + c)]), 2);
    for (int64_t c = 0; c < kD; ++c) x[static_cast<size_t>(r * kD + c)] /= static_cast<float>(std::sqrt(square));
  }
  std::vector<f16> vectors = halves(x);
  const auto index = [&] { return vector_index(t.context, View<const f16, 2>(vectors.data(), kRows, kD)); };
  const VectorIndex rows = index();
  const Values shift = random(kD, 4, 0.02);
  for (int64_t r = 0; r < kRows; r += 37) {
    Values query(x.begin() + r * kD, x.begin() + (r + 1) * kD);
    for (size_t c = 0; c < kD; ++c) query[c] += shift[c];
    const Neighbours got = vector_search(t.context, rows, query, 1);
    EXPECT_EQ(got.ids, std::vector<int32_t>{static_cast<int32_t>(r)});
    EXPECT_NEAR(got.scores[0], 1, 0.1);
  }
  // Rows that are not finite are never found.
  const Values query(x.begin(), x.begin() + kD);
  vectors[0] = to_f16(std::numeric_limits<float>::infinity());
  vectors[kD] = to_f16(std::numeric_limits<float>::quiet_NaN());
  const Neighbours rest = vector_search(t.context, index(), query, kRows);
  EXPECT_EQ(rest.ids.size(), kRows - 2u);
  for (size_t i = 0; i < rest.ids.size(); ++i) EXPECT_TRUE(rest.ids[i] > 1 && std::isfinite(rest.scores[i]));
  EXPECT_TRUE(vector_search(t.context, rows, query, 0).ids.empty());
  const VectorIndex none = vector_index(t.context, View<const f16, 2>(nullptr, 0, kD));
  EXPECT_TRUE(vector_search(t.context, none, query, 1).ids.empty());
  EXPECT_THROW(vector_search(t.context, rows, Values(kD - 1), 1), Error);
  EXPECT_THROW(vector_search(t.context, rows, Values(kD, std::numeric_limits<float>::infinity()), 1), Error);
  EXPECT_THROW(vector_search(t.context, rows, Values(kD, 3e38f), 1),
               Error);  // sums beyond f32 would be infinite or NaN
}

}  // namespace
}  // namespace graft
