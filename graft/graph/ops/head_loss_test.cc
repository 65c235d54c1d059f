#include "graft/graph/test_support.h"

namespace graft {
namespace {

using test::Bench;
using test::expect_error;

// head_loss starts the gradient itself, so its loss is bound apart from the bench's.
struct Case {
  bool train_head = false, lora = false, train = true;
  double smoothing = 0;
  int64_t chunk_rows = 3;
  bool dora = false;  // with lora
};
const RunSizes kHeadLossSizes = {.tokens = 6, .labels = 5, .sequences = 1, .max_length = 6};
const std::vector<int32_t> kLabels = {2, 0, 10, 2, 7};
const std::vector<double> kWeights = {0.25, 0.5, 0, 0.125, 0.125};

struct HeadBench {
  HeadBench(DType dtype, const Case& c) : b(dtype, kHeadLossSizes) {
    const Value x = b.leaf(Rows::kLabels, 6, 1), head = b.weight(11, 6, 2, c.train_head);
    for (double& v : b.values(head)) v = static_cast<double>(static_cast<float>(v * 2));
    const Value labels = b.indices(Rows::kLabels, kLabels);
    const Value weights = b.other(b.g.bound("weights", {Rows::kLabels, 1, 1, 0}, DType::kF64), kWeights.data());
    const Value loss_value = b.other(b.g.bound("head loss", fixed_shape(1, 1), DType::kF64), &loss);
    HeadLossAttr attr;
    attr.label_smoothing = c.smoothing, attr.chunk_rows = c.chunk_rows, attr.train = c.train;
    Value h, lora_b;
    if (c.lora) {
      const Value a = b.parameter(3, 6, 3);
      lora_b = b.parameter(11, 3, 4);
      attr.lora_scaling = 1.5;
      h = lora_down(b.g, x, {{{a, lora_b, attr.lora_scaling}}}, {});
    }
    Value magnitude, norm;
    if (c.dora) magnitude = b.parameter(11, 1, 5), norm = b.parameter(11, 1, 6, /*trainable=*/false);
    if (c.dora) {
      for (double& v : b.values(norm)) v = static_cast<double>(static_cast<float>(1.5 + v / 4));
    }
    dora_norm = norm;
    nll = head_loss(b.g, x, head, labels, weights, loss_value, h, lora_b, attr, magnitude, norm);
    b.g.keep(nll);
    b.finish({});
  }
  double run() {
    b.loss();
    return loss;
  }
  Bench b;
  Value nll, dora_norm;
  double loss = 0;
};

// The definition, from the bench's values.
double plain_loss(HeadBench& t, const Case& c) {
  const std::vector<Value> p = t.b.trained();
  std::vector<double> x = t.b.values(p[0]), head;
  for (int32_t id = 0; id < static_cast<int32_t>(t.b.g.values().size()); ++id) {
    if (t.b.g.info({id}).kind == ValueKind::kWeight) head = t.b.values({id});
  }
  double loss = 0;
  for (size_t i = 0; i < kLabels.size(); ++i) {
    std::vector<double> z(11);
    for (size_t v = 0; v < 11; ++v) {
      for (size_t k = 0; k < 6; ++k) z[v] += x[i * 6 + k] * head[v * 6 + k];
      if (!c.lora) continue;
      const size_t after = c.dora ? 1 : 0;  // the magnitude
      const std::vector<double>&a = t.b.values(p[p.size() - 2 - after]), &bb = t.b.values(p[p.size() - 1 - after]);
      for (size_t r = 0; r < 3; ++r) {
        double h = 0;
        for (size_t k = 0; k < 6; ++k) h += 1.5 * a[r * 6 + k] * x[i * 6 + k];
        z[v] += h * bb[v * 3 + r];
      }
      if (c.dora) z[v] *= t.b.values(p[p.size() - 1])[v] / t.b.values(t.dora_norm)[v];
    }
    double sum = 0, all = 0;
    for (double value : z) sum += std::exp(value), all += value;
    const double nll = std::log(sum) - (1 - c.smoothing) * z[static_cast<size_t>(kLabels[i])] - c.smoothing / 11 * all;
    loss += kWeights[i] * nll;
  }
  return loss;
}

TEST(HeadLossOp, LossAndGradient) {
  for (const Case& c :
       {Case{}, Case{true, false}, Case{false, true}, Case{true, true, true, 0.1}, Case{false, false, true, 0.2, 64},
        Case{true, true, true, 0, 1}, Case{false, true, true, 0.1, 2, true}}) {
    SCOPED_TRACE(fmt::format("head {} lora {} smoothing {} chunk {}", c.train_head, c.lora, c.smoothing, c.chunk_rows));
    HeadBench exact(DType::kF64, c), single(DType::kF32, c);
    const double loss = exact.run();
    EXPECT_NEAR(loss, plain_loss(exact, c), 1e-13);  // some twenty roundings of f64
    EXPECT_NEAR(single.run(), loss, 2e-6);           // f32, loss of order 3
    std::map<int32_t, std::vector<double>> gradients;
    for (Value p : exact.b.trained()) gradients[p.id] = exact.b.gradient(p);
    for (Value p : exact.b.trained()) {
      const std::vector<double> kept = exact.b.values(p), &gradient = gradients[p.id], narrow = single.b.gradient(p);
      double largest = 0;
      for (double d : gradient) largest = std::max(largest, std::fabs(d));
      ASSERT_GT(largest, 0);
      for (size_t i = 0; i < kept.size(); ++i) {
        const double h = 1e-5;
        exact.b.values(p)[i] = kept[i] + h;
        const double above = exact.run();
        exact.b.values(p)[i] = kept[i] - h;
        const double below = exact.run();
        exact.b.values(p)[i] = kept[i];
        // Element by element: h^2 / 6 times a third derivative below 10 and 1e-16 / h of rounding.
        ASSERT_NEAR(gradient[i], (above - below) / (2 * h), 1e-6 * largest)
            << exact.b.g.info(p).name << " element " << i;
        ASSERT_NEAR(narrow[i], gradient[i], 2e-5 * largest) << exact.b.g.info(p).name << " in f32, element " << i;
      }
    }
  }
}

TEST(HeadLossOp, ChunksDoNotShow) {
  for (const bool dora : {false, true}) {
    const auto bits = [dora](int64_t chunk) {
      HeadBench t(DType::kF32, {false, true, true, 0.1, chunk, dora});
      const double loss = t.run();
      const auto nll = t.b.plan.read<float>(t.nll, kHeadLossSizes);
      std::vector<double> all(nll.data(), nll.data() + nll.size());
      all.push_back(loss);
      const std::vector<double> dx = t.b.gradient(t.b.trained()[0]);
      all.insert(all.end(), dx.begin(), dx.end());
      return all;
    };
    EXPECT_EQ(bits(1), bits(64));
    EXPECT_EQ(bits(2), bits(64));
  }
}

TEST(HeadLossOp, EvaluationGivesTheSameLossAndNoBackward) {
  HeadBench train(DType::kF32, {}), evaluate(DType::kF32, {false, false, false});
  EXPECT_EQ(train.run(), evaluate.run());
  EXPECT_EQ(evaluate.b.num_backward(), 0u);
  EXPECT_EQ(train.b.num_backward(), 1u);  // the leaf's
}

TEST(HeadLossOp, ShapeErrorsNameBoth) {
  Bench b(DType::kF32, kHeadLossSizes);
  const Value x = b.leaf(Rows::kLabels, 6, 1), head = b.weight(11, 5, 2), good = b.weight(11, 6, 3);
  const Value labels = b.indices(Rows::kLabels, {}), tokens = b.indices(Rows::kTokens, {});
  const Value loss = b.g.bound("l", fixed_shape(1, 1), DType::kF64), a = b.parameter(2, 6, 4),
              lora_b = b.parameter(11, 3, 5);
  expect_error([&] { head_loss(b.g, x, head, labels, labels, loss, {}, {}, {}); },
               {"[11, 5]", "[vocab, 6]", "[labels, 6]"});
  expect_error([&] { head_loss(b.g, x, good, tokens, labels, loss, {}, {}, {}); }, {"[tokens, 1]", "[labels, 1]"});
  const Value h = lora_down(b.g, x, {{{a, lora_b, 1}}}, {});
  expect_error([&] { head_loss(b.g, x, good, labels, labels, loss, h, lora_b, {}); }, {"[11, 3]", "[11, 2]"});
}

}  // namespace
}  // namespace graft
