// lora_down and projections together: what linear layers are made of.
#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::check_op;
using test::expect_error;

const RunSizes kLoraSizes = {.tokens = 10, .labels = 3, .sequences = 2, .max_length = 6};

// Two slots: rank 2 and 5 on the first target, none and 3 on the second; a third slot adapts nothing.
std::vector<std::vector<AdapterPair>> ragged_adapters(Bench& b, bool trainable = true) {
  return {{{b.parameter(2, 6, 20, trainable), b.parameter(4, 2, 21, trainable), 0.5},
           {b.parameter(5, 6, 22, trainable), b.parameter(4, 5, 23, trainable), 2.0},
           {}},
          {{}, {b.parameter(3, 6, 24, trainable), b.parameter(7, 3, 25, trainable), -1.5}, {}}};
}

TEST(LoraOps, GradientOfOneAdapterOnSharedTargets) {
  check_op("q, k, v", kLoraSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 6, 1);
    const std::vector<std::vector<AdapterPair>> adapters = {{{b.parameter(2, 6, 20), b.parameter(4, 2, 21), 2.0}},
                                                            {},
                                                            {{b.parameter(3, 6, 22), b.parameter(5, 3, 23), 0.25}}};
    const Value h = lora_down(b.g, x, adapters, {});
    return projections(b.g, Compute::kF32, x,
                       {{b.weight(4, 6, 2), b.parameter(4, 1, 3), {}, adapters[0]},
                        {b.weight(7, 6, 4), {}, {}, adapters[1]},
                        {b.parameter(5, 6, 5, false), {}, b.leaf(Rows::kTokens, 5, 6), adapters[2]}},
                       h, {});
  });
}

TEST(LoraOps, GradientOfSeveralSlots) {
  // The last row range is a slot without an adapter, one slot has no rows.
  for (const std::vector<int32_t>& offsets :
       {std::vector<int32_t>{0, 4, 7, 10}, {0, 10, 10, 10}, {0, 0, 6, 10}, {0, 3, 10, 10}}) {
    check_op(fmt::format("slots at {}", fmt::join(offsets, " ")), kLoraSizes, [&](Bench& b) {
      const Value x = b.leaf(Rows::kTokens, 6, 1), slots = b.indices(fixed_shape(4, 1), offsets);
      // Slots that this split leaves without rows are frozen: their gradient is zero.
      const bool all = offsets[1] > 0 && offsets[2] > offsets[1] && offsets[2] < 10;
      const auto adapters = ragged_adapters(b, all);
      const Value h = lora_down(b.g, x, adapters, slots);
      return projections(
          b.g, Compute::kF32, x,
          {{b.weight(4, 6, 2), {}, {}, adapters[0]}, {b.weight(7, 6, 3, true), b.parameter(7, 1, 4), {}, adapters[1]}},
          h, slots);
    });
  }
}

TEST(LoraOps, LoraAloneAndNothingBelow) {
  // x feeds the adapter only through lora_down: no gradient arrived at x before, and rows of the empty slot have none at all.
  // Scaling 1: whoever reads h multiplies its gradient.
  check_op("h alone", kLoraSizes, [](Bench& b) {
    const Value slots = b.indices(fixed_shape(4, 1), {0, 4, 7, 10});
    return std::vector<Value>{lora_down(b.g, b.leaf(Rows::kTokens, 6, 1),
                                        {{{b.parameter(2, 6, 20), {}, 1}, {b.parameter(5, 6, 22), {}, 1}, {}}}, slots)};
  });
}

TEST(LoraOps, RowsOfASlotAreThoseOfItsAdapterAlone) {
  const auto run = [&](const std::vector<int32_t>& offsets) {
    Bench b(DType::kF32, kLoraSizes);
    const Value x = b.leaf(Rows::kTokens, 6, 1), slots = b.indices(fixed_shape(4, 1), offsets);
    const auto adapters = ragged_adapters(b);
    const Value h = lora_down(b.g, x, adapters, slots);
    b.finish(projections(b.g, Compute::kF32, x,
                         {{b.weight(4, 6, 2), {}, {}, adapters[0]}, {b.weight(7, 6, 3), {}, {}, adapters[1]}}, h,
                         slots));
    b.loss();
    return std::pair(b.output(0), b.output(1));
  };
  const auto mixed = run({0, 4, 7, 10}), first = run({0, 10, 10, 10}), second = run({0, 0, 10, 10}),
             base = run({0, 0, 0, 10});
  for (const int member : {0, 1}) {
    const int64_t columns = member == 0 ? 4 : 7;
    const auto of = [member](const auto& result) { return member == 0 ? result.first : result.second; };
    for (int64_t t = 0; t < 10; ++t) {
      const std::vector<double> want = of(t < 4 ? first : t < 7 ? second : base);
      for (int64_t j = 0; j < columns; ++j) {
        const auto at = static_cast<size_t>(t * columns + j);
        ASSERT_EQ(of(mixed)[at], want[at]) << "target " << member << " row " << t;
      }
    }
  }
}

TEST(LoraOps, ZeroBLeavesTheBaseBitForBit) {
  const auto run = [](bool adapted) {
    Bench b(DType::kF32, kLoraSizes);
    const Value x = b.leaf(Rows::kTokens, 6, 1), w = b.weight(4, 6, 2), bias = b.parameter(4, 1, 3),
                residual = b.leaf(Rows::kTokens, 4, 4);
    std::vector<std::vector<AdapterPair>> adapters = {{}};
    if (adapted) adapters = {{{b.parameter(2, 6, 20), b.parameter(4, 2, 21), 2.0}}};
    if (adapted) std::fill(b.values(adapters[0][0].b).begin(), b.values(adapters[0][0].b).end(), 0.0);
    const Value h = adapted ? lora_down(b.g, x, adapters, {}) : Value{};
    b.finish(projections(b.g, Compute::kF32, x, {{w, bias, residual, adapters[0]}}, h, {}));
    b.loss();
    if (adapted) {
      for (double d : b.gradient(adapters[0][0].a)) EXPECT_EQ(d, 0);
      for (double d : b.gradient(adapters[0][0].b)) EXPECT_NE(d, 0);
    }
    return b.output(0);
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(LoraOps, TheInputAsResidual) {
  // y = x W^T + x, then z = y + x: the gradient that arrives at x is the one the product reads too, so it must not be overwritten.
  check_op("residual is x", kLoraSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 6, 1);
    const Value y = projections(b.g, Compute::kF32, x, {{b.weight(6, 6, 2, true), {}, x, {}}}, {}, {})[0];
    return std::vector<Value>{add(b.g, y, x)};
  });
  check_op("adapter, z = y + x", kLoraSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 6, 1);
    const std::vector<std::vector<AdapterPair>> adapters = {{{b.parameter(2, 6, 20), b.parameter(6, 2, 21), 2.0}}};
    const Value h = lora_down(b.g, x, adapters, {});
    return std::vector<Value>{
        add(b.g, projections(b.g, Compute::kF32, x, {{b.weight(6, 6, 2), {}, {}, adapters[0]}}, h, {})[0], x)};
  });
}

TEST(LoraOps, FrozenPartsCostNoNodes) {
  const auto count = [](bool x_trained, bool w, bool bias, bool lora) {
    Bench b(DType::kF64, kLoraSizes);
    static const std::vector<double> zeros(100);
    const Value x =
        x_trained ? b.leaf(Rows::kTokens, 6, 1) : b.other(b.g.bound("x", {Rows::kTokens, 1, 6, 0}), zeros.data());
    const std::vector<std::vector<AdapterPair>> adapters = {
        {{b.parameter(2, 6, 20, lora), b.parameter(4, 2, 21, lora), 2.0}}};
    const Value h = lora_down(b.g, x, adapters, {});
    b.finish(projections(b.g, Compute::kF32, x, {{b.weight(4, 6, 2, w), b.parameter(4, 1, 3, bias), {}, adapters[0]}},
                         h, {}));
    return b.num_backward();
  };
  EXPECT_EQ(count(false, false, false, false), 0u);
  EXPECT_EQ(count(false, false, false, true), 2u);  // dh with dB, dA; no dx
  EXPECT_EQ(count(false, true, false, false), 1u);  // dW
  EXPECT_EQ(count(false, false, true, false), 1u);  // dbias
  EXPECT_EQ(count(true, false, false, true), 4u);   // dh, dx, dA with its part of dx, the leaf
  EXPECT_EQ(count(true, true, true, true), 6u);
}

TEST(LoraEmbeddingOp, Gradient) {
  const std::vector<int32_t> ids = {4, 0, 4, 2, 8, 4, 0, 1, 1, 3};
  for (const bool table : {false, true}) {
    check_op(table ? "trained table" : "frozen table", kLoraSizes, [&](Bench& b) {
      const Value i = b.indices(Rows::kTokens, ids);
      return std::vector<Value>{lora_embedding(b.g, i, embedding(b.g, i, b.weight(9, 5, 1, table)),
                                               {b.parameter(9, 3, 2), b.parameter(5, 3, 3), 1.5})};
    });
  }
}

TEST(LoraEmbeddingOp, ShapeErrorNamesAll) {
  Bench b(DType::kF32, kLoraSizes);
  const Value x = b.leaf(Rows::kTokens, 6, 1), ids = b.indices(Rows::kTokens, {}), a = b.parameter(9, 3, 2),
              b5 = b.parameter(5, 3, 3);
  expect_error([&] { lora_embedding(b.g, ids, x, {a, b5, 1}); }, {"[9, 3]", "[5, 3]", "[6, rank]", "[tokens, 6]"});
}

TEST(LoraOps, ShapeErrorsNameBoth) {
  Bench b(DType::kF32, kLoraSizes);
  const Value x = b.leaf(Rows::kTokens, 6, 1), a = b.parameter(2, 5, 2), w = b.weight(4, 5, 3), w6 = b.weight(4, 6, 4),
              bias = b.parameter(5, 1, 5);
  const Value a6 = b.parameter(2, 6, 6), b5 = b.parameter(5, 2, 7), b4 = b.parameter(4, 3, 8),
              residual = b.leaf(Rows::kTokens, 5, 9);
  const Value slots = b.indices(fixed_shape(2, 1), {});
  expect_error([&] { lora_down(b.g, x, {{{a, b4, 1}}}, {}); }, {"[2, 5]", "[rank, 6]", "[tokens, 6]"});
  expect_error([&] { lora_down(b.g, x, {{{a6, b4, 1}, {a6, b4, 1}}}, {}); }, {"2 slots"});
  expect_error([&] { lora_down(b.g, x, {{{a6, b4, 1}, {a6, b4, 1}}}, slots); }, {"2 slots", "[2, 1]"});
  expect_error(
      [&] {
        projections(b.g, Compute::kF32, x, {{w, {}, {}, {}}}, {}, {});
      },
      {"[4, 5]", "[out, 6]", "[tokens, 6]"});
  expect_error([&] { projections(b.g, Compute::kF32, x, {{w6, bias, {}, {}}}, {}, {}); }, {"[5, 1]", "[4, 1]"});
  expect_error(
      [&] {
        projections(b.g, Compute::kF32, x, {{w6, {}, residual, {}}}, {}, {});
      },
      {"[tokens, 5]", "[tokens, 4]"});
  const Value h = lora_down(b.g, x, {{{a6, b5, 1}}}, {});
  expect_error(
      [&] {
        projections(b.g, Compute::kF32, x, {{w6, {}, {}, {{a6, b5, 1}}}}, h, {});
      },
      {"[5, 2]", "[4, rank]"});
  expect_error([&] { projections(b.g, Compute::kF32, x, {{w6, {}, {}, {{a6, b4, 1}}}}, h, {}); }, {"[tokens, 2]", "3"});
}

}  // namespace
}  // namespace graft
