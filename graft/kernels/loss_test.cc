#include "graft/kernels/loss.h"

#include "graft/kernels/math.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using test::Matrix;

template <typename T>
struct LossProblem {
  int64_t rows, hidden, vocab, rank;
  std::vector<T> x, head, h, b;
  std::vector<int32_t> labels;
  std::vector<double> weights;
  double smoothing = 0;

  LossProblem(int64_t rows_, int64_t hidden_, int64_t vocab_, int64_t rank_, double logit_scale = 1)
      : rows(rows_), hidden(hidden_), vocab(vocab_), rank(rank_) {
    x = test::random_values<T>(rows * hidden, 1);
    head = test::random_values<T>(vocab * hidden, 2, logit_scale);
    h = test::random_values<T>(rows * rank, 3);
    b = test::random_values<T>(vocab * rank, 4);
    for (int64_t i = 0; i < rows; ++i) {
      labels.push_back(static_cast<int32_t>((i * 7919 + vocab - 1) % vocab));
      weights.push_back(i % 4 == 2 ? 0.0 : 1.0 / static_cast<double>(rows + i));
    }
  }
};

template <typename T>
struct LossResult {
  double loss = 0;
  std::vector<T> nll, dx, dhead, dlora_h, dlora_b;
};

template <typename T>
LossResult<T> run(Context& context, const LossProblem<T>& p, int64_t chunk_rows, bool backward = true) {
  LossResult<T> r;
  const auto sized = [](int64_t n) { return std::vector<T>(static_cast<size_t>(n), T{0.5}); };
  r.nll = sized(p.rows);
  r.dx = sized(p.rows * p.hidden);
  r.dhead = sized(p.vocab * p.hidden);
  r.dlora_h = sized(p.rows * p.rank);
  r.dlora_b = sized(p.vocab * p.rank);
  HeadLossArgs<T> args;
  args.x = View<const T, 2>(p.x.data(), p.rows, p.hidden);
  args.head.rows = View<const T, 2>(p.head.data(), p.vocab, p.hidden);
  if (p.rank > 0) {
    args.lora.row_end = p.rows;
    args.lora.h = View<const T, 2>(p.h.data(), p.rows, p.rank);
    args.lora.b = View<const T, 2>(p.b.data(), p.vocab, p.rank);
  }
  args.labels = p.labels;
  args.weights = p.weights;
  args.label_smoothing = p.smoothing;
  args.chunk_rows = chunk_rows;
  args.nll = r.nll;
  if (backward) {
    args.dx = View<T, 2>(r.dx.data(), p.rows, p.hidden);
    args.dhead = View<T, 2>(r.dhead.data(), p.vocab, p.hidden);
    if (p.rank > 0) {
      args.dlora_h = View<T, 2>(r.dlora_h.data(), p.rows, p.rank);
      args.dlora_b = View<T, 2>(r.dlora_b.data(), p.vocab, p.rank);
    }
  }
  // The need is stated for f32; f64 (tests only) takes twice the room.
  context.reserve(head_cross_entropy_scratch(context.num_threads(), p.hidden, p.vocab,
                                             chunk_rows * static_cast<int64_t>(sizeof(T) / 4), p.rank));
  r.loss = head_cross_entropy<T>(context, args);
  return r;
}

// The formula, in f64 and one row at a time.
template <typename T>
LossResult<double> plain(const LossProblem<T>& p) {
  LossResult<double> r;
  const auto sized = [](int64_t n, double v) { return std::vector<double>(static_cast<size_t>(n), v); };
  r.nll = sized(p.rows, 0);
  r.dx = sized(p.rows * p.hidden, 0);
  r.dhead = sized(p.vocab * p.hidden, 0.5);
  r.dlora_h = sized(p.rows * p.rank, 0);
  r.dlora_b = sized(p.vocab * p.rank, 0.5);
  for (int64_t i = 0; i < p.rows; ++i) {
    std::vector<double> z(static_cast<size_t>(p.vocab));
    double top = -INFINITY, mean = 0, sum = 0;
    for (int64_t v = 0; v < p.vocab; ++v) {
      double& at = z[static_cast<size_t>(v)];
      for (int64_t k = 0; k < p.hidden; ++k) {
        at += static_cast<double>(p.x[static_cast<size_t>(i * p.hidden + k)]) *
              p.head[static_cast<size_t>(v * p.hidden + k)];
      }
      for (int64_t k = 0; k < p.rank; ++k) {
        at += static_cast<double>(p.h[static_cast<size_t>(i * p.rank + k)]) * p.b[static_cast<size_t>(v * p.rank + k)];
      }
      top = std::max(top, at);
      mean += at / static_cast<double>(p.vocab);
    }
    for (const double at : z) sum += std::exp(at - top);
    const double log_z = top + std::log(sum), w = p.weights[static_cast<size_t>(i)];
    const auto label = static_cast<size_t>(p.labels[static_cast<size_t>(i)]);
    r.nll[static_cast<size_t>(i)] = log_z - (1 - p.smoothing) * z[label] - p.smoothing * mean;
    r.loss += w * r.nll[static_cast<size_t>(i)];
    for (int64_t v = 0; v < p.vocab; ++v) {
      const double dz =
          w * (std::exp(z[static_cast<size_t>(v)] - log_z) - (static_cast<size_t>(v) == label ? 1 - p.smoothing : 0) -
               p.smoothing / static_cast<double>(p.vocab));
      for (int64_t k = 0; k < p.hidden; ++k) {
        r.dx[static_cast<size_t>(i * p.hidden + k)] += dz * p.head[static_cast<size_t>(v * p.hidden + k)];
        r.dhead[static_cast<size_t>(v * p.hidden + k)] += dz * p.x[static_cast<size_t>(i * p.hidden + k)];
      }
      for (int64_t k = 0; k < p.rank; ++k) {
        r.dlora_h[static_cast<size_t>(i * p.rank + k)] += dz * p.b[static_cast<size_t>(v * p.rank + k)];
        r.dlora_b[static_cast<size_t>(v * p.rank + k)] += dz * p.h[static_cast<size_t>(i * p.rank + k)];
      }
    }
  }
  return r;
}

template <typename T>
void expect_near(const LossResult<T>& got, const LossResult<double>& want, double tolerance) {
  test::expect_close(got.loss, want.loss, tolerance, "loss");
  const auto compare = [&](const std::vector<T>& a, const std::vector<double>& b, const char* what) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) test::expect_close(a[i], b[i], tolerance, what + std::to_string(i));
  };
  compare(got.nll, want.nll, "nll ");
  compare(got.dx, want.dx, "dx ");
  compare(got.dhead, want.dhead, "dhead ");
  compare(got.dlora_h, want.dlora_h, "dlora_h ");
  compare(got.dlora_b, want.dlora_b, "dlora_b ");
}

TEST(HeadLoss, MatchesThePlainFormula) {
  test::TestContext t;
  for (const double smoothing : {0.0, 0.1}) {
    for (const int64_t vocab : {1, 5, 100, 4099}) {
      for (const int64_t rank : {0, 3}) {
        LossProblem<double> p(7, 6, vocab, rank);
        p.smoothing = smoothing;
        expect_near(run(t.context, p, 3), plain(p), 1e-12);  // f64 sums of a few thousand terms
        LossProblem<float> pf(7, 6, vocab, rank);
        pf.smoothing = smoothing;
        expect_near(run(t.context, pf, 3), plain(pf),
                    3e-6);  // f32: exp within 1 ulp, sums in 64 lanes; logits of order 3
      }
    }
  }
}

TEST(HeadLoss, GradientMatchesDifferencesInDouble) {
  test::TestContext t;
  LossProblem<double> p(5, 4, 11, 2);
  p.smoothing = 0.2;
  const LossResult<double> r = run(t.context, p, 2);
  const auto objective = [&] { return run(t.context, p, 2, false).loss; };
  test::expect_gradient(p.x, r.dx, objective, "dx");
  test::expect_gradient(p.h, r.dlora_h, objective, "dlora_h");
  auto dhead = r.dhead, dlora_b = r.dlora_b;
  for (double& v : dhead) v -= 0.5;  // they are added to what was there
  for (double& v : dlora_b) v -= 0.5;
  test::expect_gradient(p.head, dhead, objective, "dhead");
  test::expect_gradient(p.b, dlora_b, objective, "dlora_b");
}

TEST(HeadLoss, SameBitsOnEveryCpuLevelAndThreadCount) {
  for (const int64_t vocab : test::edge_sizes()) {
    if (vocab == 0) continue;
    for (const double smoothing : {0.0, 0.1}) {
      LossProblem<float> p(vocab > 1000 ? 3 : 9, 5, vocab, vocab % 2 == 0 ? 2 : 0, 4);
      p.smoothing = smoothing;
      test::expect_same_bits(
          [&](Context& context) {
            const LossResult<float> r = run(context, p, 2);
            std::vector<float> all;
            test::append_double(all, r.loss);
            for (const auto* part : {&r.nll, &r.dx, &r.dhead, &r.dlora_h, &r.dlora_b}) test::append(all, *part);
            return all;
          },
          "head loss " + std::to_string(vocab));
    }
  }
}

TEST(HeadLoss, ChunksAndOtherRowsChangeNoBit) {
  test::TestContext t;
  const LossProblem<float> p(37, 24, 300, 4, 3);
  const LossResult<float> want = run(t.context, p, 64);
  for (const int64_t chunk : {1, 2, 5, 36, 37}) {
    const LossResult<float> got = run(t.context, p, chunk);
    EXPECT_EQ(got.loss, want.loss);
    EXPECT_EQ(got.nll, want.nll);
    EXPECT_EQ(got.dx, want.dx);
    EXPECT_EQ(got.dlora_h, want.dlora_h);
  }
  EXPECT_EQ(run(t.context, p, 7, false).nll, want.nll);
}

TEST(HeadLoss, WeightZeroKeepsTheLossAndDropsTheGradient) {
  test::TestContext t;
  const LossProblem<float> p(7, 6, 50, 0);
  const LossResult<float> r = run(t.context, p, 4);
  ASSERT_EQ(p.weights[2], 0.0);
  EXPECT_NEAR(r.nll[2], plain(p).nll[2], 1e-5);
  for (int64_t k = 0; k < 6; ++k) EXPECT_EQ(r.dx[static_cast<size_t>(2 * 6 + k)], 0.0f);
}

TEST(HeadLoss, NanAndInfiniteLogitsShow) {
  test::TestContext t;
  for (const float bad : {NAN, INFINITY}) {
    LossProblem<float> p(3, 2, 5000, 0);
    p.head[static_cast<size_t>(2 * 4500)] = bad;
    for (int64_t i = 0; i < 3; ++i) p.x[static_cast<size_t>(2 * i)] = 1;
    const LossResult<float> r = run(t.context, p, 3);
    EXPECT_TRUE(std::isnan(r.loss)) << bad;
    EXPECT_TRUE(std::isnan(r.nll[0]) && std::isnan(r.nll[2])) << bad;
  }
  LossProblem<float> huge(2, 1, 3, 0);  // logits of 1e30 and -1e30: no overflow
  huge.x = {1, 1};
  huge.head = {1e30f, -1e30f, 0};
  huge.labels = {0, 0};
  EXPECT_EQ(run(t.context, huge, 2).loss, 0.0);
}

}  // namespace
}  // namespace graft
