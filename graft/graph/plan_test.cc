#include "graft/graph/plan.h"

#include <cstddef>

#include "graft/graph/test_support.h"
#include "tests/support/count_allocations.h"

namespace graft {
namespace {

using test::Bench;
using test::expect_error;

const RunSizes kPlanSizes = {.tokens = 9, .labels = 2, .sequences = 2, .max_length = 5};
constexpr int64_t kWidth = 8;

// Ops of a random graph on [tokens, 8] values, drawn from those that are there; the last few are the outputs. In segments of three nodes.
std::vector<Value> random_graph(Bench& b, uint64_t seed, const RopeTable& table, bool keep_all) {
  const RandomStream stream(seed, 9);
  uint64_t draw = 0;
  const auto pick = [&](uint64_t n) { return stream.word(draw++) % n; };
  b.inputs.rope = &table;
  const Value positions = b.indices(Rows::kTokens, {0, 1, 2, 3, 0, 1, 2, 3, 4}),
              offsets = b.indices({Rows::kSequences, 1, 1, 1}, {0, 4, 9});
  std::vector<Value> pool = {b.leaf(Rows::kTokens, kWidth, 1), b.leaf(Rows::kTokens, kWidth, 2)};
  // Recent values more often, so that chains form whose members die.
  const auto any = [&] { return pool[pool.size() - 1 - pick(std::min<uint64_t>(pool.size(), 4))]; };
  for (int i = 0; i < 24; ++i) {
    b.g.set_scope("node" + std::to_string(i), i / 3);
    const uint64_t parameter = 100 + static_cast<uint64_t>(i) * 10;
    switch (pick(6)) {
      case 0: pool.push_back(add(b.g, any(), any())); break;
      case 1: pool.push_back(swiglu(b.g, any(), any())); break;
      case 2: pool.push_back(rms_norm(b.g, any(), b.parameter(kWidth / 2, 1, parameter, pick(2) == 0), 1e-5, 2)); break;
      case 3: pool.push_back(rope(b.g, any(), positions, 4, pick(2) == 0)); break;
      case 4: {
        AttentionAttr attr;
        attr.num_heads = attr.num_kv_heads = 2, attr.head_dim = 4, attr.scale = 0.5;
        const Value q = any(), k = any(), v = any();
        pool.push_back(attention(b.g, q, k, v, offsets, attr));
        break;
      }
      default: {
        const Value x = any();
        const std::vector<std::vector<AdapterPair>> adapters = {
            {{b.parameter(2, kWidth, parameter), b.parameter(kWidth, 2, parameter + 1), 1.5}}};
        const Value h = lora_down(b.g, x, adapters, {});
        pool.push_back(projections(
            b.g, Compute::kF32, x,
            {{b.weight(kWidth, kWidth, parameter + 2, pick(2) == 0), {}, pick(2) == 0 ? any() : Value{}, adapters[0]}},
            h, {})[0]);
      }
    }
  }
  b.g.set_scope("");
  if (keep_all) {
    for (size_t id = 0; id < b.g.values().size(); ++id) b.g.keep({static_cast<int32_t>(id)});
  }
  return {pool[pool.size() - 1], pool[pool.size() - 2], pool[pool.size() - 5]};
}

// The loss, the outputs and every gradient.
std::vector<double> everything(Bench& b) {
  std::vector<double> all = {b.loss()};
  for (size_t i = 0; i < b.num_outputs(); ++i) {
    const std::vector<double> y = b.output(i);
    all.insert(all.end(), y.begin(), y.end());
  }
  for (Value p : b.trained()) {
    const std::vector<double> d = b.gradient(p);
    all.insert(all.end(), d.begin(), d.end());
  }
  return all;
}

RopeTable small_table() {
  RopeParameters p;
  p.theta = 100, p.head_dim = 4;
  return make_rope_table(p, 8);
}

// The arena of `finish` is full of NaN, so a value read before it is written shows in every comparison.
TEST(Plan, ArenaGivesTheBitsOfSeparateBuffers) {
  const RopeTable table = small_table();
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Bench shared(DType::kF32, kPlanSizes, 1), separate(DType::kF32, kPlanSizes, 1);
    shared.finish(random_graph(shared, seed, table, false));
    separate.finish(random_graph(separate, seed, table, true));
    // Kept values lie apart from each other to the end of the run.
    const std::vector<double> want = everything(separate);
    const std::vector<double> got = everything(shared);
    ASSERT_EQ(got, want);
    ASSERT_EQ(everything(shared), want);  // a second run finds the first one's leavings
    EXPECT_LT(shared.plan.arena_bytes(), separate.plan.arena_bytes());
  }
}

TEST(Plan, RecomputeGivesTheSameBits) {
  const RopeTable table = small_table();
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Bench plain(DType::kF32, kPlanSizes, 1);
    plain.finish(random_graph(plain, seed, table, false));
    const std::vector<double> want = everything(plain);
    for (const int every : {1, 2, 3}) {
      SCOPED_TRACE(fmt::format("seed {}, every {}", seed, every));
      Bench b(DType::kF32, kPlanSizes, 1);
      b.finish(random_graph(b, seed, table, false), nullptr, every);
      ASSERT_EQ(everything(b), want);
    }
  }
}

// A chain of layers: each keeps much inside and hands on little.
std::vector<Value> layers(Bench& b, int count) {
  Value x = b.leaf(Rows::kTokens, kWidth, 1);
  for (int i = 0; i < count; ++i) {
    b.g.set_scope("layer" + std::to_string(i), i);
    const uint64_t seed = 100 + static_cast<uint64_t>(i) * 10;
    const Value n = rms_norm(b.g, x, b.parameter(kWidth, 1, seed), 1e-5);
    const auto gate_up = projections(
        b.g, Compute::kF32, n,
        {{b.weight(48, kWidth, seed + 1, true), {}, {}, {}}, {b.weight(48, kWidth, seed + 2), {}, {}, {}}}, {}, {});
    x = projections(b.g, Compute::kF32, swiglu(b.g, gate_up[0], gate_up[1]),
                    {{b.weight(kWidth, 48, seed + 3, true), {}, x, {}}}, {}, {})[0];
  }
  b.g.set_scope("");
  return {x};
}

TEST(Plan, RecomputeMakesTheArenaSmaller) {
  Bench plain(DType::kF32, kPlanSizes);
  plain.finish(layers(plain, 12));
  const std::vector<double> want = everything(plain);
  size_t bytes[4] = {plain.plan.arena_bytes()};
  for (const int every : {1, 2, 3}) {
    Bench b(DType::kF32, kPlanSizes);
    b.finish(layers(b, 12), nullptr, every);
    EXPECT_EQ(everything(b), want) << every;
    bytes[every] = b.plan.arena_bytes();
  }
  // Twelve layers' insides shrink to one (two, three) and twelve (six, four) inputs.
  EXPECT_LT(bytes[1] * 4, bytes[0]);
  EXPECT_LT(bytes[2] * 3, bytes[0]);
  EXPECT_LT(bytes[3] * 2, bytes[0]);
}

TEST(Plan, SmallerRunsThanTheCapacity) {
  const RunSizes large = {.tokens = 200, .labels = 9, .sequences = 7, .max_length = 90};
  const RopeTable table = small_table();
  for (uint64_t seed : {3u, 4u, 5u}) {
    Bench exact(DType::kF32, kPlanSizes), roomy(DType::kF32, kPlanSizes);
    exact.finish(random_graph(exact, seed, table, false));
    const std::vector<Value> ys = random_graph(roomy, seed, table, false);
    roomy.finish(ys, &large);
    EXPECT_EQ(everything(exact), everything(roomy));
  }
}

TEST(Plan, WorksInPlaceWhereTheInputEnds) {
  Bench b(DType::kF32, kPlanSizes);
  const Value x = b.leaf(Rows::kTokens, kWidth, 1), y = b.leaf(Rows::kTokens, kWidth, 2);
  const Value both = add(b.g, x, y);         // x is read again below
  const Value last = add(b.g, both, x);      // both ends here
  const Value twice = add(b.g, last, last);  // one value in two roles
  b.finish({twice});
  EXPECT_NE(b.plan.bound(both), b.plan.bound(x));
  EXPECT_EQ(b.plan.bound(last), b.plan.bound(both));
  EXPECT_NE(b.plan.bound(twice), b.plan.bound(last));
  b.loss();
  const std::vector<double> got = b.output(0);
  const std::vector<Value> p = b.trained();
  for (size_t i = 0; i < got.size(); ++i) {
    const auto a = static_cast<float>(b.values(p[0])[i]), c = static_cast<float>(b.values(p[1])[i]);
    EXPECT_EQ(got[i], static_cast<double>(2 * ((a + c) + a)));
  }
}

TEST(Plan, KeptValuesAreNotOverwritten) {
  Bench b(DType::kF32, kPlanSizes);
  const Value x = b.leaf(Rows::kTokens, kWidth, 1), y = add(b.g, x, b.leaf(Rows::kTokens, kWidth, 2));
  b.g.keep(x);
  b.finish({y});
  EXPECT_NE(b.plan.bound(x), b.plan.bound(y));
}

TEST(Plan, RunningAllocatesNothing) {
  const RopeTable table = small_table();
  for (const int threads : {1, 2}) {
    Bench b(DType::kF32, kPlanSizes, threads);
    b.finish(random_graph(b, 7, table, false), nullptr, 2);
    b.loss();  // binds
    // A plan of more nodes on this thread: what its ops keep is reserved by prepare, before the first run.
    Bench larger(DType::kF32, {.tokens = 9, .labels = 2, .sequences = 2, .max_length = 5}, threads);
    larger.finish(layers(larger, 12));
    const int64_t buffers = Buffer::num_created(), allocations = allocation_count.calls;
    for (int i = 0; i < 3; ++i) b.plan.run(b.context(), b.inputs);
    EXPECT_EQ(allocation_count.calls, allocations);
    EXPECT_EQ(Buffer::num_created(), buffers);
  }
}

TEST(Plan, TheFirstRunAllocatesNothingEither) {
  Bench b(DType::kF32, {.tokens = 40, .labels = 2, .sequences = 20, .max_length = 2});
  std::vector<int32_t> offsets;
  for (int32_t i = 0; i <= 20; ++i) offsets.push_back(2 * i);
  AttentionAttr attr;
  attr.num_heads = attr.num_kv_heads = 2, attr.head_dim = 4, attr.scale = 0.5;
  const Value x = b.leaf(Rows::kTokens, kWidth, 1), o = b.indices({Rows::kSequences, 1, 1, 1}, offsets);
  std::vector<std::vector<AdapterPair>> adapters;
  std::vector<Projection> outputs;
  for (uint64_t i = 0; i < 20; ++i) {
    adapters.push_back({{b.parameter(2, kWidth, 10 + i), b.parameter(kWidth, 2, 50 + i), 1.0}});
    outputs.push_back({b.weight(kWidth, kWidth, 100 + i), {}, {}, adapters.back()});
  }
  const Value h = lora_down(b.g, x, adapters, {});
  std::vector<Value> ys = projections(b.g, Compute::kF32, x, outputs, h, {});
  ys.push_back(attention(b.g, x, x, x, o, attr));
  b.finish(ys);
  b.inputs.sizes = b.sizes();
  // Bound by hand: the bench's own binding allocates.
  std::vector<std::vector<float>> memory(b.g.values().size());
  std::vector<Weight> weights(b.g.values().size());
  for (size_t id = 0; id < b.g.values().size(); ++id) {
    const Value v{static_cast<int32_t>(id)};
    const ValueInfo& info = b.g.info(v);
    if (info.kind == ValueKind::kWeight) {
      weights[id] = Weight(DType::kF32, info.shape.fixed_rows, info.shape.columns);
      b.plan.bind(v, static_cast<const void*>(&weights[id]));
    } else if (info.kind == ValueKind::kBound && info.dtype == DType::kF32) {
      memory[id].assign(static_cast<size_t>(info.shape.elements(b.sizes())), 0.5f);
      b.plan.bind(v, static_cast<void*>(memory[id].data()));
    }
  }
  const int64_t buffers = Buffer::num_created(), allocations = allocation_count.calls;
  b.plan.run(b.context(), b.inputs);
  EXPECT_EQ(allocation_count.calls, allocations);
  EXPECT_EQ(Buffer::num_created(), buffers);
}

TEST(Plan, DebugNamesTheFirstOpThatIsNotFinite) {
  ::setenv("GRAFT_DEBUG", "ops", 1);
  Bench b(DType::kF32, kPlanSizes);
  const Value x = b.leaf(Rows::kTokens, kWidth, 1);
  b.g.set_scope("layer3.mlp");
  const Value y = swiglu(b.g, x, b.leaf(Rows::kTokens, kWidth, 2));
  b.g.set_scope("layer4");
  b.finish({rms_norm(b.g, y, b.parameter(kWidth, 1, 3), 1e-5)});
  ::unsetenv("GRAFT_DEBUG");
  EXPECT_TRUE(std::isfinite(b.loss()));
  std::vector<double>& values = b.values(b.trained()[0]);
  for (double& v : values) v = 1e30;
  for (double& v : b.values(b.trained()[1])) v = 1;
  values[2 * kWidth + 5] = 3e38;
  b.values(b.trained()[1])[2 * kWidth + 5] = 10;
  expect_error([&] { b.loss(); }, {"swiglu", "layer3.mlp", "[tokens, 8]", "inf", "row 2, column 5"});
}

TEST(Plan, MoreThanTheCapacityIsAnError) {
  Bench b(DType::kF32, kPlanSizes);
  b.finish({add(b.g, b.leaf(Rows::kTokens, kWidth, 1), b.leaf(Rows::kTokens, kWidth, 2))});
  const auto run = [&](RunSizes sizes) {
    RunInputs inputs;
    inputs.sizes = sizes;
    b.plan.run(b.context(), inputs);
  };
  expect_error([&] { run({.tokens = 10, .labels = 2, .sequences = 2, .max_length = 5}); },
               {"9 tokens", "asked to run 10"});
  expect_error([&] { run({.tokens = 9, .labels = 3, .sequences = 2, .max_length = 5}); }, {"2 labels", "3"});
  expect_error([&] { run({.tokens = 9, .labels = 2, .sequences = 4, .max_length = 5}); }, {"2 sequences", "4"});
  expect_error([&] { run({.tokens = 9, .labels = 2, .sequences = 2, .max_length = 6}); }, {"up to 5", "up to 6"});
}

const Op kOneWay = {.name = "one_way", .run = [](const Run&, const Node&) {}};

TEST(Autodiff, OpWithoutGradientIsNamed) {
  Bench b(DType::kF32, kPlanSizes);
  const Value x = b.leaf(Rows::kTokens, kWidth, 1);
  b.g.set_scope("here");
  b.g.add_node(kOneWay, {x}, {}, {b.g.shape(x)});
  expect_error([&] { build_gradients(b.g); }, {"here", "one_way"});
}

}  // namespace
}  // namespace graft
