// moe.md, section 8: what the kernels of a model give on extreme inputs, on every variant. Extreme logits of the router stand in moe_route_test.cc.
#include <fmt/format.h>

#include "graft/kernels/activation.h"
#include "graft/kernels/attention_test_data.h"
#include "graft/kernels/loss.h"
#include "graft/kernels/norm.h"
#include "graft/kernels/rope.h"
#include "graft/kernels/softmax.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

// `check` on every variant that this CPU has.
void at_every_level(const std::function<void(Context&)>& check) {
  const CpuLevel top = cpu_level();
  test::TestContext t;
  for (const CpuLevel level : cpu_levels_available()) {
    SCOPED_TRACE(cpu_level_name(level));
    set_cpu_level(level);
    check(t.context);
    set_cpu_level(top);
  }
}

TEST(Numerics, SoftmaxOfExtremeLogits) {
  // Finite rows sum to one; what a row without a finite maximum gives (NaN) stands in softmax.h and is tested as Softmax.EdgeRows.
  const std::vector<std::vector<float>> rows = {{1e4f, -1e4f, 0, 9999},
                                                {3e38f, -3e38f, 0, 3e38f},
                                                {-3e38f, -3e38f, -3e38f, -3e38f},
                                                {7, 7, 7, 7},
                                                {-INFINITY, 5, -INFINITY, -INFINITY}};
  const std::vector<std::vector<double>> want = {{1 / (1 + std::exp(-1.0)), 0, 0, 1 / (1 + std::exp(1.0))},
                                                 {0.5, 0, 0, 0.5},
                                                 {0.25, 0.25, 0.25, 0.25},
                                                 {0.25, 0.25, 0.25, 0.25},
                                                 {0, 1, 0, 0}};
  at_every_level([&](Context& context) {
    for (size_t i = 0; i < rows.size(); ++i) {
      Matrix<float> x(1, 4, 0, rows[i]), y(1, 4);
      softmax_stable(context, x.in(), y.view);
      double sum = 0;
      for (size_t j = 0; j < 4; ++j) {
        EXPECT_NEAR(y.values[j], want[i][j], 4e-6) << i << " " << j;  // the bar of softmax.h
        sum += y.values[j];
      }
      EXPECT_NEAR(sum, 1, 1e-6) << i;
    }
  });
}

TEST(Numerics, CrossEntropyOfExtremeLogits) {
  struct Row {
    std::vector<float> logits;
    int32_t label;
    double loss;
  };
  const std::vector<Row> rows = {{{1e4f, -1e4f, 0, 0}, 0, 0},
                                 {{1e4f, -1e4f, 0, 0}, 1, 2e4},
                                 {{3e38f, -3e38f, 0, 0}, 0, 0},
                                 {{3e38f, 0, -3e38f, 0}, 1, 3e38},
                                 {{-3e38f, -3e38f, -3e38f, -3e38f}, 2, std::log(4.0)},
                                 {{7, 7, 7, 7}, 3, std::log(4.0)},
                                 {{-INFINITY, 5, -INFINITY, -INFINITY}, 1, 0}};
  at_every_level([&](Context& context) {
    for (size_t i = 0; i < rows.size(); ++i) {
      const Row& row = rows[i];
      // As the model computes it, x = 1 and the head the logits; and of logits that are there.
      HeadLossArgs<float> args;
      const std::vector<float> one = {1};
      const std::vector<double> weight = {1};
      std::vector<float> nll(1), dx(1), dhead(4);
      args.x = View<const float, 2>(one.data(), 1, 1);
      args.head.rows = View<const float, 2>(row.logits.data(), 4, 1);
      args.labels = std::span(&row.label, 1), args.weights = weight, args.nll = nll;
      args.dx = View<float, 2>(dx.data(), 1, 1), args.dhead = View<float, 2>(dhead.data(), 4, 1);
      context.reserve(head_cross_entropy_scratch(context.num_threads(), 1, 4, args.chunk_rows, 0));
      const double loss = head_cross_entropy<float>(context, args);
      test::expect_close(loss, row.loss, 1e-6, "head_cross_entropy " + std::to_string(i));
      double sum = 0;
      for (const float d : dhead) {
        EXPECT_TRUE(std::isfinite(d)) << i;
        sum += d;
      }
      EXPECT_NEAR(sum, 0, 1e-6) << i;  // softmax - onehot
      Matrix<float> logits(1, 4, 0, row.logits);
      std::vector<float> each(1);
      const LossValue value = loss_cross_entropy(context, logits.in(), std::span(&row.label, 1), {}, -100, each);
      test::expect_close(value.sum, row.loss, 1e-6, "loss_cross_entropy " + std::to_string(i));
    }
  });
}

TEST(Numerics, RmsNormOfTinyAndHugeRows) {
  constexpr int64_t kN = 96;
  const std::vector<double> scales = {0, 1e-30, 1, 1e18};
  const auto rows = static_cast<int64_t>(scales.size());
  std::vector<float> x = test::random_values<float>(rows * kN, 1);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      float& v = x[static_cast<size_t>(i * kN + j)];
      v = static_cast<float>(v * scales[static_cast<size_t>(i)]);
    }
  }
  const std::vector<float> weight = test::random_values<float>(kN, 2), dy = test::random_values<float>(rows * kN, 3);
  const auto run = [&]<typename T>(Context& context, T) {
    std::vector<T> in(x.begin(), x.end()), w(weight.begin(), weight.end()), up(dy.begin(), dy.end());
    std::vector<T> y(in.size()), r(scales.size()), dx(in.size()), dw(w.size());
    const auto view = [&](std::vector<T>& v) { return View<T, 2>(v.data(), rows, kN); };
    rms_norm<T>(context, view(in), w, 1e-6, view(y), r);
    rms_norm_backward<T>(context, view(up), view(in), w, r, {}, view(dx), dw);
    return std::vector<std::vector<double>>{
        {y.begin(), y.end()}, {dx.begin(), dx.end()}, {dw.begin(), dw.end()}, {r.begin(), r.end()}};
  };
  at_every_level([&](Context& context) {
    const auto got = run(context, float{}), want = run(context, double{});
    for (int64_t j = 0; j < kN; ++j) EXPECT_EQ(got[0][static_cast<size_t>(j)], 0);  // 0 -> 0
    for (size_t what = 0; what < got.size(); ++what) {
      const size_t row = got[what].size() == x.size() ? kN : got[what].size() == weight.size() ? weight.size() : 1;
      for (size_t begin = 0; begin < got[what].size(); begin += row) {  // each row at its own scale
        double largest = 0;
        for (size_t i = begin; i < begin + row; ++i) largest = std::max(largest, std::fabs(want[what][i]));
        for (size_t i = begin; i < begin + row; ++i) {
          // A few roundings of f32; 1e-45 is the smallest number there is.
          ASSERT_NEAR(got[what][i], want[what][i], 2e-6 * largest + 1e-44) << what << " " << i;
        }
      }
    }
  });
}

TEST(Numerics, SiluFarFromZero) {
  const std::vector<float> gate = {100, -100, 1e4f, -1e4f, 3e38f, -3e38f};
  const std::vector<float> ones(gate.size(), 1.0f);
  const auto n = static_cast<int64_t>(gate.size());
  const auto in = [&](const std::vector<float>& v) { return View<const float, 2>(v.data(), 1, n); };
  at_every_level([&](Context& context) {
    std::vector<float> y(gate.size()), dgate(gate.size()), dup(gate.size());
    const auto out = [&](std::vector<float>& v) { return View<float, 2>(v.data(), 1, n); };
    swiglu<float>(context, in(gate), in(ones), out(y));
    swiglu_backward<float>(context, in(ones), in(gate), in(ones), out(dgate), out(dup));
    for (size_t i = 0; i < gate.size(); ++i) {
      const bool positive = gate[i] > 0;
      EXPECT_NEAR(y[i], positive ? gate[i] : 0, 1e-40) << gate[i];  // 100 e^-100 is 4e-42
      EXPECT_NEAR(dup[i], positive ? gate[i] : 0, 1e-40) << gate[i];
      EXPECT_NEAR(dgate[i], positive ? 1 : 0, 1e-40) << gate[i];
    }
  });
}

// One visible key: the value, whatever the score.
TEST(Numerics, AttentionToOneKeyIsItsValue) {
  at_every_level([](Context&) {
    for (const bool one_token : {true, false}) {
      const test::Shape s{4, 2, 24, one_token ? 0 : 1};  // a window of one key, or a sequence of one token
      const test::Sequence<float> x = test::make_sequence<float>(s, one_token ? 1 : 70, 0, 5);
      test::Runner runner(2);
      for (const test::Layout layout : {test::Layout::kRows, test::Layout::kCache}) {
        const auto got = test::attend<float>(runner, s, {&x}, layout);
        for (int64_t p = 0; p < x.length; ++p) {
          for (int64_t h = 0; h < 4; ++h) {
            for (int64_t e = 0; e < 24; ++e) {
              ASSERT_EQ(got.o[static_cast<size_t>((p * 4 + h) * 24 + e)],
                        x.v[static_cast<size_t>((p * 2 + h / 2) * 24 + e)])
                  << p << " " << h << " " << e;
            }
          }
        }
      }
    }
  });
}

TEST(Numerics, RotationKeepsTheNormAtEveryPosition) {
  constexpr int64_t kLength = 32768, kD = 64;
  RopeParameters p;
  p.head_dim = kD, p.type = RopeParameters::Type::kNtk, p.factor = 8;
  const RopeTable table = make_rope_table(p, kLength);
  const std::vector<float> one = test::random_values<float>("x", 4, kD);
  std::vector<float> x, y(static_cast<size_t>(kLength * kD));
  std::vector<int32_t> positions;
  for (int32_t i = 0; i < kLength; ++i) {
    positions.push_back(i);
    x.insert(x.end(), one.begin(), one.end());
  }
  double norm = 0;
  for (const float v : one) norm += static_cast<double>(v) * v;
  test::TestContext t;
  for (const bool interleaved : {false, true}) {
    rope<float>(t.context, View<const float, 3>(x.data(), kLength, 1, kD), positions, table, interleaved, false,
                View<float, 3>(y.data(), kLength, 1, kD));
    double worst = 0;
    for (int64_t i = 0; i < kLength; ++i) {
      double turned = 0;
      for (int64_t e = 0; e < kD; ++e) {
        const double v = y[static_cast<size_t>(i * kD + e)];
        turned += v * v;
      }
      worst = std::max(worst, std::fabs(std::sqrt(turned / norm) - 1));
    }
    EXPECT_LE(worst, 1e-5);  // the bar of moe.md
    RecordProperty("figure: rotation, norm error", fmt::format("{:.1e} of 1e-5", worst));
  }
}

}  // namespace
}  // namespace graft
