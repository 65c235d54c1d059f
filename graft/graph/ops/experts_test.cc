// route, router_loss, experts, row_gate.
#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::check_op;
using test::expect_error;

const RunSizes kExpertsSizes = {.tokens = 7, .labels = 3, .sequences = 2, .max_length = 4};

struct Shapes {
  int64_t experts = 4, top_k = 2, hidden = 6, inner = 5;
  bool trained = true;
  int64_t rank = 0;  // of LoRA on every expert but the first, whose down has one of its own
};

ExpertWeights expert(Bench& b, const Shapes& s, int64_t e) {
  const auto seed = static_cast<uint64_t>(100 + 10 * e);
  ExpertWeights w;
  w.gate.weight = b.weight(s.inner, s.hidden, seed, s.trained);
  w.up.weight = b.weight(s.inner, s.hidden, seed + 1, s.trained);
  w.down.weight = b.weight(s.hidden, s.inner, seed + 2, s.trained);
  const auto adapt = [&](ExpertProjection& p, int64_t out, int64_t in, int64_t rank, uint64_t at, double scaling) {
    p.adapter = {b.parameter(rank, in, at), b.parameter(out, rank, at + 1), scaling};
  };
  if (s.rank > 0 && e > 0) {
    adapt(w.gate, s.inner, s.hidden, s.rank, seed + 3, 0.5);
    adapt(w.up, s.inner, s.hidden, s.rank + e % 2, seed + 5, 1);
  }
  if (s.rank > 0) adapt(w.down, s.hidden, s.inner, s.rank, seed + 7, 2);
  return w;
}

std::vector<ExpertWeights> all_experts(Bench& b, const Shapes& s) {
  std::vector<ExpertWeights> out;
  for (int64_t e = 0; e < s.experts; ++e) out.push_back(expert(b, s, e));
  return out;
}

// The block as a model has it: x goes to the router, to the experts and past them.
Value block(Bench& b, const Shapes& s, const RouteAttr& attr, Value* statistics = nullptr) {
  const Value x = b.leaf(Rows::kTokens, s.hidden, 1);
  const Value logits =
      projections(b.g, Compute::kF32, x, {{b.weight(s.experts, s.hidden, 2, true), {}, {}, {}}}, {}, {})[0];
  const Routing routing = route(b.g, logits, attr);
  if (statistics != nullptr) *statistics = routing.statistics;
  return experts(b.g, Compute::kF32, x, routing, all_experts(b, s), x);
}

TEST(ExpertsOp, Gradient) {
  for (const bool renormalize : {true, false}) {
    check_op("full", kExpertsSizes, [&](Bench& b) {
      return std::vector<Value>{block(b, Shapes{}, {.top_k = 2, .renormalize = renormalize})};
    });
  }
  check_op("LoRA, base frozen", kExpertsSizes,
           [&](Bench& b) { return std::vector<Value>{block(b, Shapes{.trained = false, .rank = 2}, {.top_k = 3})}; });
  check_op("LoRA and base", kExpertsSizes,
           [&](Bench& b) { return std::vector<Value>{block(b, Shapes{.rank = 1}, {.top_k = 2})}; });
  check_op("capacity", kExpertsSizes,
           [&](Bench& b) { return std::vector<Value>{block(b, Shapes{}, {.top_k = 2, .capacity_factor = 0.6})}; });
  check_op("wide", kExpertsSizes, [&](Bench& b) {  // more than a block of 512, and of 64
    return std::vector<Value>{block(b, Shapes{.hidden = 70, .inner = 520}, {.top_k = 2})};
  });
}

TEST(ExpertsOp, OneExpertOfOneIsADenseLayer) {
  const auto outputs = [](bool dense) {
    Bench b(DType::kF32, kExpertsSizes);
    const Shapes s{.experts = 1, .top_k = 1, .hidden = 8, .inner = 600};
    const Value x = b.leaf(Rows::kTokens, s.hidden, 1);
    const ExpertWeights w = expert(b, s, 0);
    Value y;
    if (dense) {
      const std::vector<Value> gate_up =
          projections(b.g, Compute::kF32, x, {{w.gate.weight, {}, {}, {}}, {w.up.weight, {}, {}, {}}}, {}, {});
      y = projections(b.g, Compute::kF32, swiglu(b.g, gate_up[0], gate_up[1]), {{w.down.weight, {}, x, {}}}, {}, {})[0];
    } else {
      const Value logits = projections(b.g, Compute::kF32, x, {{b.weight(1, s.hidden, 9), {}, {}, {}}}, {}, {})[0];
      y = experts(b.g, Compute::kF32, x, route(b.g, logits, {.top_k = 1}), {w}, x);
    }
    b.finish({y});
    b.loss();
    std::vector<std::vector<double>> all = {b.output(0)};
    for (const Value p : b.trained()) all.push_back(b.gradient(p));
    double flops = 0;
    for (const Node& node : b.g.nodes()) {
      const bool router = !dense && !std::string_view(node.op->name).starts_with("experts");
      if (node.op->flops != nullptr && !router) flops += node.op->flops(b.g, node, kExpertsSizes);
    }
    all.push_back({flops});
    return all;
  };
  EXPECT_EQ(outputs(true), outputs(false));
}

TEST(ExpertsOp, RecomputeGivesTheSameBits) {
  const auto gradients = [](int every) {
    Bench b(DType::kF32, kExpertsSizes);
    Value x = b.leaf(Rows::kTokens, 6, 1);
    for (int layer = 0; layer < 3; ++layer) {
      b.g.set_scope("layer", layer);
      const auto seed = static_cast<uint64_t>(1000 * (layer + 1));
      const Value logits = projections(b.g, Compute::kF32, x, {{b.weight(4, 6, seed, true), {}, {}, {}}}, {}, {})[0];
      std::vector<ExpertWeights> weights;
      for (uint64_t e = 0; e < 4; ++e) {
        ExpertWeights w;
        w.gate.weight = b.weight(5, 6, seed + 10 * e + 1, true), w.up.weight = b.weight(5, 6, seed + 10 * e + 2, true);
        w.down.weight = b.weight(6, 5, seed + 10 * e + 3, true);
        weights.push_back(w);
      }
      x = experts(b.g, Compute::kF32, x, route(b.g, logits, {.top_k = 2}), weights, x);
    }
    b.g.set_scope("");
    b.finish({x}, nullptr, every);
    b.loss();
    std::vector<std::vector<double>> all;
    for (const Value p : b.trained()) all.push_back(b.gradient(p));
    return all;
  };
  EXPECT_EQ(gradients(0), gradients(1));
  EXPECT_EQ(gradients(0), gradients(2));
}

// The auxiliary losses' own gradient, with the loss that is differenced computed from the statistics by hand.
TEST(RouterLossOp, GradientAndValue) {
  for (const bool joint : {false, true}) {
    Bench b(DType::kF64, kExpertsSizes);
    constexpr int64_t kExperts = 5, kTopK = 2;
    const double scale = 0.5, aux_coef = 0.3, z_coef = 0.07;
    std::vector<double> values(3 + 2 * kExperts);
    std::vector<Value> statistics, routers;
    const Value x = b.leaf(Rows::kTokens, 6, 1);
    for (uint64_t layer = 0; layer < 2; ++layer) {
      routers.push_back(b.weight(kExperts, 6, 20 + layer, true));
      const Value z = projections(b.g, Compute::kF32, x, {{routers.back(), {}, {}, {}}}, {}, {})[0];
      statistics.push_back(route(b.g, z, {.top_k = kTopK}).statistics);
    }
    const Value scale_value = b.other(b.g.bound("scale", fixed_shape(1, 1), DType::kF64), &scale);
    const Value held = b.other(b.g.bound("values", fixed_shape(3 + 2 * kExperts, 1), DType::kF64), values.data());
    router_loss(b.g, statistics, scale_value, held,
                {.num_experts = kExperts,
                 .top_k = kTopK,
                 .aux_coef = aux_coef,
                 .z_coef = z_coef,
                 .joint = joint,
                 .train = true});
    for (const Value s : statistics) b.g.keep(s);
    b.finish({});
    b.loss();
    const auto total = [&] {
      b.loss();
      double aux = 0, z = 0;
      std::vector<double> p(kExperts), f(kExperts);
      for (const Value s : statistics) {
        const auto read = b.plan.read<double>(s, kExpertsSizes);
        for (size_t e = 0; e < kExperts; ++e) {
          const double mean = read.data()[e], share = read.data()[kExperts + 2 + e];
          p[e] += mean / 2, f[e] += share / 2;
          if (!joint) aux += kExperts * mean * share;
        }
        z += read.data()[kExperts];
      }
      for (size_t e = 0; e < kExperts && joint; ++e) aux += kExperts * kTopK * p[e] * f[e];
      EXPECT_NEAR(values[0], aux, 1e-14);
      EXPECT_NEAR(values[1], z, 1e-13);
      return scale * (aux_coef * aux + z_coef * z);
    };
    for (const Value p : b.trained()) {
      const std::vector<double> gradient = [&] { return b.loss(), b.gradient(p); }();
      std::vector<double> direction(gradient.size());
      for (size_t i = 0; i < direction.size(); ++i) direction[i] = std::cos(static_cast<double>(3 * i + 1));
      const std::vector<double> kept = b.values(p);
      double want = 0;
      for (size_t i = 0; i < gradient.size(); ++i) want += gradient[i] * direction[i];
      const auto at = [&](double h) {
        for (size_t i = 0; i < kept.size(); ++i) b.values(p)[i] = kept[i] + h * direction[i];
        return total();
      };
      const double difference = (at(1e-5) - at(-1e-5)) / 2e-5;
      b.values(p) = kept;
      EXPECT_GT(std::fabs(want), 1e-4);
      EXPECT_NEAR(difference, want, 1e-6 * std::fabs(want)) << b.g.info(p).name;
    }
  }
}

TEST(RowGateOp, Gradient) {
  check_op("gate", kExpertsSizes, [](Bench& b) {
    const Value x = b.leaf(Rows::kTokens, 5, 1);
    return std::vector<Value>{row_gate(b.g, x, b.leaf(Rows::kTokens, 1, 2), b.leaf(Rows::kTokens, 5, 3))};
  });
  check_op("without residual", kExpertsSizes, [](Bench& b) {
    return std::vector<Value>{row_gate(b.g, b.leaf(Rows::kTokens, 5, 1), b.leaf(Rows::kTokens, 1, 2), {})};
  });
}

TEST(ExpertsOp, ShapeErrorsNameBoth) {
  Bench b(DType::kF32, kExpertsSizes);
  const Shapes s;
  const Value x = b.leaf(Rows::kTokens, s.hidden, 1);
  const Value logits = projections(b.g, Compute::kF32, x, {{b.weight(4, s.hidden, 2), {}, {}, {}}}, {}, {})[0];
  expect_error([&] { route(b.g, logits, {.top_k = 5}); }, {"5 of 4", "[tokens, 4]"});
  const Routing routing = route(b.g, logits, {.top_k = 2});
  std::vector<ExpertWeights> weights = all_experts(b, s);
  expect_error([&] { experts(b.g, Compute::kF32, x, routing, {weights[0]}, {}); }, {"1 experts", "4"});
  weights[2].up.weight = b.weight(s.inner + 1, s.hidden, 900);
  expect_error([&] { experts(b.g, Compute::kF32, x, routing, weights, {}); }, {"[6, 6]", "[5, 6]", "one size"});
  expect_error([&] { row_gate(b.g, x, x, {}); }, {"[tokens, 6]", "[tokens, 1]"});
}

}  // namespace
}  // namespace graft
