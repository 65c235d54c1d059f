#include "graft/kernels/embedding.h"

#include <gtest/gtest.h>

#include "graft/kernels/gemm_test_util.h"

namespace graft {
namespace {

using test::GemmMatrix;
using test::rounded;

TEST(Embedding, GathersRowsOfEveryForm) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    Context context(pool);
    test::Uniform random(1);
    const GemmMatrix<float> rows = random.matrix<float>(130, 37);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back((i * 37 + 129) % 130);
    for (DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
      const Weight packed = test::pack(context, type, rows);
      GemmMatrix<float> y(50, 37, 3);
      embedding<float>(context, ids, {&packed, {}}, y.view());
      GemmMatrix<double> y64(50, 37);
      embedding<double>(context, ids, {&packed, {}}, y64.view());
      for (int64_t i = 0; i < 50; ++i) {
        for (int64_t j = 0; j < 37; ++j) {
          const float want = rounded(type, rows.at(ids[static_cast<size_t>(i)], j));
          ASSERT_EQ(y.at(i, j), want);
          ASSERT_EQ(y64.at(i, j), static_cast<double>(want));
        }
      }
    }
    GemmMatrix<float> y(50, 37);
    embedding<float>(context, ids, {nullptr, rows.cview()}, y.view());
    for (int64_t i = 0; i < 50; ++i) ASSERT_EQ(y.at(i, 36), rows.at(ids[static_cast<size_t>(i)], 36));
  }
}

TEST(Embedding, GradientAddsTokensInOrderOnAnyThreads) {
  const int64_t vocab = 9, hidden = 150, tokens = 200;
  test::Uniform random(2);
  const GemmMatrix<float> dy = random.matrix<float>(tokens, hidden), start = random.matrix<float>(vocab, hidden);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>(i * i % 7));
  GemmMatrix<float> want = start;
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t j = 0; j < hidden; ++j) want.at(ids[static_cast<size_t>(i)], j) += dy.at(i, j);
  }
  for (int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    Context context(pool);
    context.reserve(embedding_backward_scratch(threads, tokens));
    GemmMatrix<float> table = start;
    embedding_backward<float>(context, ids, dy.cview(), table.view());
    EXPECT_TRUE(test::same_bits(table.values, want.values)) << threads;
  }
}

TEST(Embedding, GradientPassesOverTheFrozenRow) {
  ThreadPool pool(2);
  Context context(pool);
  test::Uniform random(4);
  const GemmMatrix<float> dy = random.matrix<float>(6, 70);
  const std::vector<int32_t> ids = {3, 1, 3, 0, 1, 3};
  GemmMatrix<float> all = random.matrix<float>(4, 70);
  const GemmMatrix<float> start = all;
  GemmMatrix<float> some = start;
  embedding_backward<float>(context, ids, dy.cview(), all.view());
  embedding_backward<float>(context, ids, dy.cview(), some.view(), 3);
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 70; ++j) ASSERT_EQ(some.at(i, j), (i == 3 ? start : all).at(i, j));
  }
  EXPECT_NE(all.at(3, 0), start.at(3, 0));
}

TEST(Embedding, GatherAndScatterRowsAreTransposes) {
  ThreadPool pool(2);
  Context context(pool);
  test::Uniform random(3);
  const GemmMatrix<float> x = random.matrix<float>(70, 5, 2);
  const std::vector<int32_t> rows = {0, 3, 15, 16, 17, 40, 69};
  GemmMatrix<float> y(7, 5, 1), dx(70, 5, 4);
  gather_rows<float>(context, rows, x.cview(), y.view());
  scatter_rows<float>(context, rows, y.cview(), dx.view());
  size_t next = 0;
  for (int64_t i = 0; i < 70; ++i) {
    const bool kept = next < rows.size() && rows[next] == i;
    for (int64_t j = 0; j < 5; ++j) {
      if (kept) {
        ASSERT_EQ(y.at(static_cast<int64_t>(next), j), x.at(i, j));
      }
      ASSERT_EQ(dx.at(i, j), kept ? x.at(i, j) : 0.0f);
    }
    next += kept ? 1 : 0;
  }
  scatter_rows<float>(context, {}, y.cview(), dx.view());
  for (int64_t i = 0; i < 70; ++i) ASSERT_EQ(dx.at(i, 4), 0.0f);
}

}  // namespace
}  // namespace graft
