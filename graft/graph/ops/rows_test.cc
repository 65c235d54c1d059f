// embedding, gather_rows, rms_norm, rope.
#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::check_op;
using test::expect_error;

const RunSizes kRowsSizes = {.tokens = 7, .labels = 3, .sequences = 2, .max_length = 4};

TEST(EmbeddingOp, GradientOfTrainedTable) {
  const std::vector<int32_t> ids = {4, 0, 4, 2, 8, 4, 0};
  check_op("packed", kRowsSizes, [&](Bench& b) {
    return std::vector<Value>{embedding(b.g, b.indices(Rows::kTokens, ids), b.weight(9, 5, 1, true))};
  });
  check_op("rows", kRowsSizes, [&](Bench& b) {
    return std::vector<Value>{embedding(b.g, b.indices(Rows::kTokens, ids), b.parameter(9, 5, 1))};
  });
}

TEST(EmbeddingOp, FrozenTableCostsNoNodes) {
  Bench b(DType::kF64, kRowsSizes);
  const Value e = embedding(b.g, b.indices(Rows::kTokens, {0, 1, 2, 3, 4, 5, 6}), b.weight(9, 5, 1));
  b.finish({e});
  EXPECT_EQ(b.num_backward(), 0u);
}

TEST(EmbeddingOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kRowsSizes);
  const Value ids = b.indices({Rows::kTokens, 1, 2, 0}, {}), table = b.weight(9, 5, 1);
  expect_error([&] { embedding(b.g, ids, table); }, {"[tokens, 2]", "one column"});
}

TEST(GatherRowsOp, Gradient) {
  check_op("gather", kRowsSizes, [](Bench& b) {
    return std::vector<Value>{gather_rows(b.g, b.leaf(Rows::kTokens, 5, 1), b.indices(Rows::kLabels, {1, 2, 6}))};
  });
  // Gathered, and used whole as well: the scattered gradient is one of two.
  check_op("gather and x", kRowsSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 5, 1);
    return std::vector<Value>{gather_rows(b.g, x, b.indices(Rows::kLabels, {0, 2, 5})), add(b.g, x, x)};
  });
}

TEST(RmsNormOp, Gradient) {
  for (const int64_t groups : {1, 3}) {
    check_op(fmt::format("{} groups", groups), kRowsSizes, [groups](Bench& b) {
      return std::vector<Value>{
          rms_norm(b.g, b.leaf(Rows::kTokens, 12, 1), b.parameter(12 / groups, 1, 2), 1e-5, groups)};
    });
  }
  // As in a layer: x goes past the norm, and its gradient is folded into the norm's.
  check_op("residual", kRowsSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 12, 1), weight = b.parameter(12, 1, 2);
    return std::vector<Value>{add(b.g, x, rms_norm(b.g, x, weight, 1e-5))};
  });
  check_op("one weight in two norms", kRowsSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 12, 1), weight = b.parameter(12, 1, 2);
    return std::vector<Value>{rms_norm(b.g, rms_norm(b.g, x, weight, 1e-5), weight, 1e-5)};
  });
}

TEST(RmsNormOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kRowsSizes);
  const Value x = b.leaf(Rows::kTokens, 12, 1), weight = b.parameter(12, 1, 2);
  expect_error([&] { rms_norm(b.g, x, weight, 1e-5, 3); }, {"[12, 1]", "[4, 1]", "[tokens, 12]"});
  expect_error([&] { rms_norm(b.g, x, weight, 1e-5, 5); }, {"[tokens, 12]", "5 groups"});
}

RopeTable table_of(int64_t head_dim) {
  RopeParameters p;
  p.theta = 100, p.head_dim = head_dim;
  return make_rope_table(p, 16);
}

TEST(RopeOp, Gradient) {
  const RopeTable table = table_of(6);
  for (const bool interleaved : {false, true}) {
    check_op(interleaved ? "interleaved" : "halves", kRowsSizes, [&](Bench& b) {
      b.inputs.rope = &table;
      return std::vector<Value>{
          rope(b.g, b.leaf(Rows::kTokens, 12, 1), b.indices(Rows::kTokens, {0, 1, 2, 0, 1, 2, 15}), 6, interleaved)};
    });
  }
}

TEST(RopeOp, ConventionsDifferByAPermutation) {
  const RopeTable table = table_of(6);
  const auto rotated = [&](bool interleaved, const std::vector<double>* from) {
    Bench b(DType::kF64, kRowsSizes);
    b.inputs.rope = &table;
    b.finish(
        {rope(b.g, b.leaf(Rows::kTokens, 6, 1), b.indices(Rows::kTokens, {3, 1, 2, 0, 1, 2, 15}), 6, interleaved)});
    if (from != nullptr) b.values(b.trained()[0]) = *from;
    b.loss();
    return std::pair(b.values(b.trained()[0]), b.output(0));
  };
  const auto [x, y] = rotated(false, nullptr);
  const auto interleave = [](const std::vector<double>& halves) {
    std::vector<double> out(halves.size());
    for (size_t t = 0; t < halves.size(); t += 6) {
      for (size_t i = 0; i < 3; ++i) out[t + 2 * i] = halves[t + i], out[t + 2 * i + 1] = halves[t + i + 3];
    }
    return out;
  };
  const std::vector<double> permuted = interleave(x);
  EXPECT_EQ(rotated(true, &permuted).second, interleave(y));
}

TEST(RopeOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kRowsSizes);
  const Value x = b.leaf(Rows::kTokens, 12, 1), positions = b.indices(Rows::kLabels, {});
  expect_error([&] { rope(b.g, x, positions, 5, false); }, {"[tokens, 12]", "5"});
  expect_error([&] { rope(b.g, x, positions, 8, false); }, {"[tokens, 12]", "8"});
  expect_error([&] { rope(b.g, x, positions, 6, false); }, {"[labels, 1]", "[tokens, 12]"});
}

}  // namespace
}  // namespace graft
