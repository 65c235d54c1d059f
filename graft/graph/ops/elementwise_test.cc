// add, swiglu, column_scale, dropout: ops that keep the shape of their input.
#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::check_op;
using test::expect_error;

const RunSizes kElementwiseSizes = {.tokens = 7, .labels = 3, .sequences = 2, .max_length = 4};

TEST(AddOp, Gradient) {
  check_op("a + b", kElementwiseSizes, [](Bench& b) {
    return std::vector<Value>{add(b.g, b.leaf(Rows::kTokens, 5, 1), b.leaf(Rows::kTokens, 5, 2))};
  });
  // One value in both roles, and again later: three contributions.
  check_op("x + x, x + y", kElementwiseSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 5, 1);
    const Value y = add(b.g, x, x);
    return std::vector<Value>{y, add(b.g, x, y)};
  });
}

TEST(AddOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kElementwiseSizes);
  const Value x = b.leaf(Rows::kTokens, 5, 1), y = b.leaf(Rows::kTokens, 6, 2), z = b.leaf(Rows::kLabels, 5, 3);
  expect_error([&] { add(b.g, x, y); }, {"[tokens, 5]", "[tokens, 6]"});
  expect_error([&] { add(b.g, x, z); }, {"[tokens, 5]", "[labels, 5]"});
}

TEST(AddOp, FrozenInputsCostNoNodes) {
  Bench b(DType::kF64, kElementwiseSizes);
  const Value x = b.leaf(Rows::kTokens, 5, 1);
  const Value frozen = b.g.bound("frozen", {Rows::kTokens, 1, 5, 0});
  const std::vector<double> zeros(35);
  b.other(frozen, zeros.data());
  b.finish({add(b.g, frozen, x)});
  EXPECT_EQ(b.num_backward(), 1u);  // the leaf's
}

TEST(SwigluOp, Gradient) {
  check_op("swiglu", kElementwiseSizes, [](Bench& b) {
    return std::vector<Value>{swiglu(b.g, b.leaf(Rows::kTokens, 9, 1), b.leaf(Rows::kTokens, 9, 2))};
  });
  check_op("gate is up", kElementwiseSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 9, 1);
    return std::vector<Value>{swiglu(b.g, x, x)};
  });
}

TEST(SwigluOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kElementwiseSizes);
  const Value x = b.leaf(Rows::kTokens, 5, 1), y = b.leaf(Rows::kTokens, 6, 2);
  expect_error([&] { swiglu(b.g, x, y); }, {"[tokens, 5]", "[tokens, 6]"});
}

TEST(ColumnScaleOp, Gradient) {
  for (const bool bias : {false, true}) {
    check_op(bias ? "with bias" : "without bias", kElementwiseSizes, [bias](Bench& b) {
      const Value z = b.leaf(Rows::kTokens, 6, 1), magnitude = b.parameter(6, 1, 2), norm = b.parameter(6, 1, 3, false);
      // The norm is held constant, and away from zero.
      for (double& x : b.values(norm)) x = static_cast<double>(static_cast<float>(1.5 + x / 2));
      return std::vector<Value>{column_scale(b.g, z, magnitude, norm, bias ? b.parameter(6, 1, 4) : Value{})};
    });
  }
}

TEST(ColumnScaleOp, ShapeErrorNamesBoth) {
  Bench b(DType::kF32, kElementwiseSizes);
  const Value z = b.leaf(Rows::kTokens, 6, 1), six = b.parameter(6, 1, 2), five = b.parameter(5, 1, 3);
  expect_error([&] { column_scale(b.g, z, five, six, {}); }, {"magnitude", "[5, 1]", "[6, 1]", "[tokens, 6]"});
  expect_error([&] { column_scale(b.g, z, six, five, {}); }, {"norm", "[5, 1]", "[6, 1]"});
  expect_error([&] { column_scale(b.g, z, six, six, five); }, {"bias", "[5, 1]", "[6, 1]"});
}

TEST(DoraNormOp, IsTheNormOfAdaptedRows) {
  Bench b(DType::kF64, kElementwiseSizes);
  const Value w = b.weight(4, 6, 1), a = b.parameter(2, 6, 2), bb = b.parameter(4, 2, 3),
              z = b.leaf(Rows::kTokens, 4, 4);
  const Value magnitude = b.parameter(4, 1, 5);
  const Value norm = dora_norm(b.g, w, {a, bb, 0.5});
  b.g.keep(norm);
  b.finish({column_scale(b.g, z, magnitude, norm, {})});
  b.loss();
  const auto got = b.plan.read<double>(norm, b.sizes());
  for (int64_t o = 0; o < 4; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < 6; ++i) {
      double x = b.values(w)[static_cast<size_t>(o * 6 + i)];
      for (int64_t r = 0; r < 2; ++r) {
        x += 0.5 * b.values(bb)[static_cast<size_t>(o * 2 + r)] * b.values(a)[static_cast<size_t>(r * 6 + i)];
      }
      sum += x * x;
    }
    EXPECT_NEAR(got(o, 0), std::sqrt(sum), 1e-14);  // a dozen roundings of f64
  }
  // Constant in the gradient, as in the paper: nothing reaches A and B through it.
  for (Value p : {a, bb}) {
    for (double x : b.gradient(p)) EXPECT_EQ(x, 0);
  }
  for (double x : b.gradient(magnitude)) EXPECT_NE(x, 0);
}

TEST(DoraNormOp, OfAnEmbeddingIsTheNormOfAdaptedFeatures) {
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    Bench b(dtype, kElementwiseSizes);
    const Value table = b.weight(600, 6, 1), a = b.parameter(600, 2, 2), bb = b.parameter(6, 2, 3),
                z = b.leaf(Rows::kTokens, 6, 4);  // more rows than a block
    const Value norm = dora_column_norm(b.g, table, {a, bb, 0.5});
    b.g.keep(norm);
    b.finish({column_scale(b.g, z, b.parameter(6, 1, 5), norm, {})});
    b.loss();
    for (size_t o = 0; o < 6; ++o) {
      double sum = 0;
      for (size_t v = 0; v < 600; ++v) {
        double x = b.values(table)[v * 6 + o];
        for (size_t r = 0; r < 2; ++r) x += 0.5 * b.values(a)[v * 2 + r] * b.values(bb)[o * 2 + r];
        sum += x * x;
      }
      const double got = dtype == DType::kF64
                             ? b.plan.read<double>(norm, b.sizes())(static_cast<int64_t>(o), 0)
                             : static_cast<double>(b.plan.read<float>(norm, b.sizes())(static_cast<int64_t>(o), 0));
      // 600 roundings of f64; in f32 the root is rounded once and each entry thrice, which averages out
      EXPECT_NEAR(got, std::sqrt(sum), (dtype == DType::kF64 ? 1e-14 : 1e-7) * std::sqrt(sum));
    }
    for (Value p : {a, bb}) {
      for (double x : b.gradient(p)) EXPECT_EQ(x, 0);
    }
  }
}

TEST(DoraNormOp, ShapeErrorNamesAll) {
  Bench b(DType::kF32, kElementwiseSizes);
  const Value w = b.weight(4, 6, 1), a = b.parameter(2, 5, 2), bb = b.parameter(4, 2, 3);
  expect_error([&] { dora_norm(b.g, w, {a, bb, 1}); }, {"[2, 5]", "[4, 2]", "[4, 6]"});
}

TEST(DropoutOp, Gradient) {
  static const std::vector<uint64_t> keys = {3, 1, 4, 1, 5, 9, 2};
  check_op("dropout", kElementwiseSizes, [](Bench& b) {
    const Value row_keys = b.other(b.g.bound("row_keys", {Rows::kTokens, 1, 1, 0}, DType::kU64), keys.data());
    return std::vector<Value>{dropout(b.g, b.leaf(Rows::kTokens, 40, 1), row_keys, 0.3, 11, "site")};
  });
}

TEST(DropoutOp, DrawsAreNamedByKeyUpdateAndStream) {
  const std::vector<uint64_t> keys = {3, 1, 3, 7, 5, 9, 2};
  const auto mask = [&](const std::string& stream, uint64_t update, uint64_t seed) {
    Bench b(DType::kF32, kElementwiseSizes);
    const Value row_keys = b.other(b.g.bound("row_keys", {Rows::kTokens, 1, 1, 0}, DType::kU64), keys.data());
    const Value x = b.leaf(Rows::kTokens, 200, 1);
    b.finish({dropout(b.g, x, row_keys, 0.25, seed, stream)});
    b.inputs.update = update;
    for (Value p : b.trained()) std::fill(b.values(p).begin(), b.values(p).end(), 1.0);
    b.loss();
    return b.output(0);
  };
  const std::vector<double> y = mask("site", 0, 11);
  double kept = 0;
  for (double v : y) {
    EXPECT_TRUE(v == 0 || v == static_cast<double>(static_cast<float>(1 / 0.75))) << v;
    kept += v != 0;
  }
  EXPECT_NEAR(kept / static_cast<double>(y.size()), 0.75, 0.05);  // 1,400 draws: standard deviation 0.012
  EXPECT_EQ(std::vector<double>(y.begin(), y.begin() + 200),
            std::vector<double>(y.begin() + 400, y.begin() + 600));  // rows of one key
  EXPECT_EQ(y, mask("site", 0, 11));
  EXPECT_NE(y, mask("site", 1, 11));
  EXPECT_NE(y, mask("other", 0, 11));
  EXPECT_NE(y, mask("site", 0, 12));
}

TEST(DropoutOp, Errors) {
  Bench b(DType::kF32, kElementwiseSizes);
  const Value x = b.leaf(Rows::kTokens, 4, 1), keys = b.g.bound("keys", {Rows::kTokens, 1, 1, 0}, DType::kU64);
  const Value label_keys = b.g.bound("keys", {Rows::kLabels, 1, 1, 0}, DType::kU64);
  expect_error([&] { dropout(b.g, x, keys, 1.0, 1, "s"); }, {"1", "[0, 1)"});
  expect_error([&] { dropout(b.g, x, label_keys, 0.5, 1, "s"); }, {"[labels, 1]", "[tokens, 4]"});
}

}  // namespace
}  // namespace graft
