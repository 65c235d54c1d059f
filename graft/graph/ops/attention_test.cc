#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::check_op;
using test::expect_error;

AttentionAttr attr_of(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window = 0) {
  AttentionAttr attr;
  attr.num_heads = heads, attr.num_kv_heads = kv_heads, attr.head_dim = head_dim, attr.window = window;
  attr.scale = 1 / std::sqrt(static_cast<double>(head_dim));
  return attr;
}

TEST(AttentionOp, Gradient) {
  const RunSizes sizes = {.tokens = 9, .labels = 1, .sequences = 3, .max_length = 5};
  for (const AttentionAttr& attr :
       {attr_of(1, 1, 4), attr_of(4, 2, 6), attr_of(3, 1, 4), attr_of(2, 2, 4, 2), attr_of(4, 2, 4, 1)}) {
    check_op(
        fmt::format("{} heads, {} kv heads, window {}", attr.num_heads, attr.num_kv_heads, attr.window), sizes,
        [&](Bench& b) {
          const Value q = b.leaf(Rows::kTokens, attr.num_heads * attr.head_dim, 1),
                      k = b.leaf(Rows::kTokens, attr.num_kv_heads * attr.head_dim, 2);
          const Value v = b.leaf(Rows::kTokens, attr.num_kv_heads * attr.head_dim, 3);
          // A sequence of one token among them; with a window of 1 every token sees itself alone, so q and k have no gradient: their scores
          // are added from another attention.
          const Value offsets = b.indices({Rows::kSequences, 1, 1, 1}, {0, 3, 4, 9});
          std::vector<Value> ys = {attention(b.g, q, k, v, offsets, attr)};
          if (attr.window == 1) {
            ys.push_back(attention(b.g, q, k, v, offsets, attr_of(attr.num_heads, attr.num_kv_heads, attr.head_dim)));
          }
          return ys;
        });
  }
}

TEST(AttentionOp, GradientOverManyKeyBlocks) {
  const RunSizes sizes = {.tokens = 150, .labels = 1, .sequences = 2, .max_length = 140};  // blocks of 64
  check_op("150 rows", sizes, [&](Bench& b) {
    const AttentionAttr attr = attr_of(2, 1, 4, 100);
    return std::vector<Value>{attention(b.g, b.leaf(Rows::kTokens, 8, 1), b.leaf(Rows::kTokens, 4, 2),
                                        b.leaf(Rows::kTokens, 4, 3),
                                        b.indices({Rows::kSequences, 1, 1, 1}, {0, 140, 150}), attr)};
  });
}

TEST(AttentionOp, FirstTokenOfASequenceSeesItselfAlone) {
  Bench b(DType::kF32, {.tokens = 4, .labels = 1, .sequences = 2, .max_length = 2});
  const Value q = b.leaf(Rows::kTokens, 4, 1), k = b.leaf(Rows::kTokens, 4, 2), v = b.leaf(Rows::kTokens, 4, 3);
  b.finish({attention(b.g, q, k, v, b.indices({Rows::kSequences, 1, 1, 1}, {0, 2, 4}), attr_of(1, 1, 4))});
  b.loss();
  const std::vector<double> o = b.output(0), rows = b.values(b.trained()[2]);
  for (size_t i : {0u, 1u, 2u, 3u, 8u, 9u, 10u, 11u}) EXPECT_EQ(o[i], rows[i]);
}

TEST(AttentionOp, ShapeErrorNamesAll) {
  Bench b(DType::kF32, {.tokens = 4, .labels = 1, .sequences = 2, .max_length = 2});
  const Value q = b.leaf(Rows::kTokens, 8, 1), k = b.leaf(Rows::kTokens, 4, 2), v = b.leaf(Rows::kTokens, 8, 3),
              rows = b.leaf(Rows::kLabels, 4, 4);
  const Value offsets = b.indices({Rows::kSequences, 1, 1, 1}, {});
  expect_error([&] { attention(b.g, q, k, v, offsets, attr_of(2, 1, 4)); }, {"[tokens, 8]", "[tokens, 4]", "2 heads"});
  expect_error([&] { attention(b.g, q, v, v, offsets, attr_of(4, 3, 2)); },
               {"[tokens, 8]", "4 heads", "3 key/value heads"});
  expect_error([&] { attention(b.g, q, rows, rows, offsets, attr_of(2, 1, 4)); }, {"[labels, 4]", "[tokens, 4]"});
}

}  // namespace
}  // namespace graft
