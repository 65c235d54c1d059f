#include "graft/kernels/moe_gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "graft/base/float16.h"
#include "graft/kernels/gemm_test_util.h"

namespace graft {
namespace {

// Which experts each token goes to, drawn or given, sorted as route() does.
struct Routing {
  std::vector<int32_t> offsets, rows;
  int64_t tokens, top_k;
  Routing(int64_t t, int64_t experts, int64_t k, uint64_t seed, int64_t favourite = -1) : tokens(t), top_k(k) {
    std::vector<std::vector<int32_t>> of(static_cast<size_t>(experts));
    const RandomStream stream(seed, 3);
    for (int64_t i = 0; i < t; ++i) {
      std::vector<int32_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      for (int64_t j = 0; j < k; ++j) {  // the last expert never gets a row
        const auto pick = j + stream.word(static_cast<uint64_t>(i * k + j)) % (experts - 1 - j);
        std::swap(order[static_cast<size_t>(j)], order[static_cast<size_t>(pick)]);
      }
      if (favourite >= 0) std::swap(order[0], *std::find(order.begin(), order.end(), static_cast<int32_t>(favourite)));
      for (int64_t j = 0; j < k; ++j)
        of[static_cast<size_t>(order[static_cast<size_t>(j)])].push_back(static_cast<int32_t>(i * k + j));
    }
    offsets.push_back(0);
    for (const auto& list : of) {
      rows.insert(rows.end(), list.begin(), list.end());
      offsets.push_back(static_cast<int32_t>(rows.size()));
    }
  }
  ExpertRows view() const { return {offsets, rows, top_k, tokens}; }
  int64_t count() const { return static_cast<int64_t>(rows.size()); }
};

std::vector<float> flat(int64_t n, uint64_t seed) { return test::random_values<float>(n, seed); }

// The contract, written once more: blocks of 512, chains from +0, sums of blocks ascending.
float folded_sum(int64_t n, bool continues, float total, const std::function<float(int64_t, float)>& step) {
  for (int64_t begin = 0; begin < n; begin += 512) {
    float sum = 0;
    for (int64_t k = begin; k < std::min(n, begin + 512); ++k) sum = step(k, sum);
    total = begin == 0 && !continues ? sum : total + sum;
  }
  return n == 0 && !continues ? 0.0f : total;
}

using test::rounded;

enum class WeightKind { kRows, kF32, kBF16, kF16 };

// Everything one case needs: x by token, another x by sorted row, weights per expert in both directions, an adapter.
struct ExpertCase {
  int64_t tokens, experts, top_k, in, out, rank;
  int64_t favourite = -1;
};

struct ExpertData {
  ExpertCase c;
  Routing routing;
  std::vector<float> x, h, low, weights;  // [tokens, in], [rows, in], [rows, rank], [assignments]
  std::vector<std::vector<float>> w, b;   // per expert [out, in], [out, rank]
  std::vector<Weight> packed;
  std::vector<Operand<float>> operands, adapters;  // expert 0 has no adapter
  ExpertData(Context& context, const ExpertCase& value, WeightKind kind, uint64_t seed)
      : c(value), routing(c.tokens, c.experts, c.top_k, seed, c.favourite) {
    x = flat(c.tokens * c.in, seed + 1);
    h = flat(routing.count() * c.in, seed + 2);
    low = flat(routing.count() * c.rank, seed + 3);
    weights = flat(c.tokens * c.top_k, seed + 4);
    const DType type = kind == WeightKind::kBF16 ? DType::kBF16 : kind == WeightKind::kF16 ? DType::kF16 : DType::kF32;
    for (int64_t e = 0; e < c.experts; ++e) {
      w.push_back(flat(c.out * c.in, seed + 10 + static_cast<uint64_t>(e)));
      for (float& v : w.back()) v = rounded(type, v);
      b.push_back(flat(c.out * c.rank, seed + 500 + static_cast<uint64_t>(e)));
    }
    for (int64_t e = 0; e < c.experts; ++e) {
      const auto i = static_cast<size_t>(e);
      if (kind != WeightKind::kRows) {
        packed.emplace_back(type, c.out, c.in);
        packed.back().pack_rows(context, 0, c.out, DType::kF32, w[i].data());
      }
    }
    for (int64_t e = 0; e < c.experts; ++e) {
      const auto i = static_cast<size_t>(e);
      operands.push_back(kind == WeightKind::kRows
                             ? Operand<float>{nullptr, View<const float, 2>(w[i].data(), c.out, c.in)}
                             : Operand<float>{&packed[i], {}});
      adapters.push_back(e == 0 ? Operand<float>{}
                                : Operand<float>{nullptr, View<const float, 2>(b[i].data(), c.out, c.rank)});
    }
  }
  int64_t expert_of(int64_t row) const {
    return std::upper_bound(routing.offsets.begin(), routing.offsets.end(), static_cast<int32_t>(row)) -
           routing.offsets.begin() - 1;
  }
};

const ExpertCase kExpertCases[] = {
    {37, 5, 2, 70, 130, 3},     // odd sizes, an expert without rows
    {1, 4, 2, 64, 64, 8},       // decoding
    {90, 3, 1, 520, 40, 520},   // blocks of 512 in the sum and the rank
    {700, 4, 2, 24, 65, 2, 1},  // one expert has every token: more rows than a task takes
    {30, 9, 8, 33, 5, 1},       // most experts for each token
};
constexpr WeightKind kWeightKinds[] = {WeightKind::kRows, WeightKind::kF32, WeightKind::kBF16, WeightKind::kF16};

void check_products(const ExpertCase& c, WeightKind kind, const std::string& what) {
  ThreadPool one(1);
  Context maker(one);
  const ExpertData s(maker, c, kind, 40);
  const int64_t rows = s.routing.count();
  const ExpertRows view = s.routing.view();
  const ScratchNeed need = expert_scratch(7, rows, 2 * std::max(c.in, c.out) + c.rank);

  // y = x W^T (+ low B^T), gathered, by sorted row; the product of the second source by itself is a product of its own.
  std::vector<float> want_rows, want_tokens(static_cast<size_t>(c.tokens * c.out)), want_back;
  want_tokens = flat(c.tokens * c.out, 7);
  const std::vector<float> before = want_tokens;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t e = s.expert_of(row), token = view.token(row);
    const std::vector<float>& w = s.w[static_cast<size_t>(e)];
    for (int64_t o = 0; o < c.out; ++o) {
      const auto base = [&](const float* from) {
        float sum = folded_sum(c.in, false, 0, [&](int64_t k, float chain) {
          return std::fma(from[k], w[static_cast<size_t>(o * c.in + k)], chain);
        });
        if (e == 0) return sum;
        const std::vector<float>& b = s.b[static_cast<size_t>(e)];
        return folded_sum(c.rank, true, sum, [&](int64_t r, float chain) {
          return std::fma(s.low[static_cast<size_t>(row * c.rank + r)], b[static_cast<size_t>(o * c.rank + r)], chain);
        });
      };
      want_rows.push_back(base(s.x.data() + token * c.in));
      float& y = want_tokens[static_cast<size_t>(token * c.out + o)];
      y = std::fma(s.weights[static_cast<size_t>(view.rows[static_cast<size_t>(row)])], base(s.h.data() + row * c.in),
                   y);
    }
  }
  // dx[token] += two sums of y W, experts ascending: y's rows stand in for gradients.
  std::vector<float> want_dx(static_cast<size_t>(c.tokens * c.in));
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<float>& w = s.w[static_cast<size_t>(s.expert_of(row))];
    for (int64_t k = 0; k < c.in; ++k) {
      float& to = want_dx[static_cast<size_t>(view.token(row) * c.in + k)];
      const float sum = folded_sum(c.out, false, 0, [&](int64_t o, float chain) {
        return std::fma(want_rows[static_cast<size_t>(row * c.out + o)], w[static_cast<size_t>(o * c.in + k)], chain);
      });
      for (int twice = 0; twice < 2; ++twice) to = std::fma(1.0f, sum, to);
    }
  }

  test::expect_same_bits(
      [&](Context& context) {
        std::vector<float> all;
        test::Matrix<float> y(rows, c.out), tokens(c.tokens, c.out, 0, before), dx(c.tokens, c.in), scaled(rows, c.out);
        const View<const float, 2> x(s.x.data(), c.tokens, c.in), h(s.h.data(), rows, c.in),
            low(s.low.data(), rows, c.rank);
        const ExpertSource<float> gathered[] = {{x, true, s.operands, false, false, Compute::kF32},
                                                {low, false, s.adapters, false, true, Compute::kF32}};
        const ExpertSource<float> sorted[] = {{h, false, s.operands, false, false, Compute::kF32}, gathered[1]};
        const std::vector<float> scales(static_cast<size_t>(c.experts), 0.75f);
        ExpertProduct<float> products[2];
        products[0].sources = gathered, products[0].y = y.view;
        products[1].sources = std::span(gathered).first(1), products[1].y = scaled.view, products[1].scales = scales;
        expert_products<float>(context, view, products);
        ExpertProduct<float> scattered;
        scattered.sources = sorted, scattered.y = tokens.view, scattered.by_token = true, scattered.weights = s.weights;
        expert_products<float>(context, view, std::span<const ExpertProduct<float>>(&scattered, 1));
        const ExpertSource<float> back[] = {{y.in(), false, s.operands, true, false, Compute::kF32},
                                            {y.in(), false, s.operands, true, false, Compute::kF32}};
        ExpertProduct<float> down;
        down.sources = back, down.y = dx.view, down.by_token = true;
        expert_products<float>(context, view, std::span<const ExpertProduct<float>>(&down, 1));
        test::append(all, y.view), test::append(all, tokens.view), test::append(all, dx.view);
        EXPECT_EQ(y.values, want_rows) << what;
        EXPECT_EQ(tokens.values, want_tokens) << what;
        EXPECT_EQ(dx.values, want_dx) << what;
        for (int64_t row = 0; row < rows; ++row) {
          if (s.expert_of(row) != 0) continue;  // without an adapter the scaled product is the same sum
          for (int64_t o = 0; o < c.out; ++o) EXPECT_EQ(scaled.view(row, o), 0.75f * y.view(row, o)) << what;
        }
        return all;
      },
      what, need);
}

TEST(ExpertProducts, AreTheContractBitForBit) {
  for (const ExpertCase& c : kExpertCases) {
    for (const WeightKind kind : kWeightKinds) {
      check_products(c, kind,
                     fmt::format("tokens {} experts {} k {} in {} out {} rank {} kind {}", c.tokens, c.experts, c.top_k,
                                 c.in, c.out, c.rank, static_cast<int>(kind)));
    }
  }
}

TEST(ExpertProducts, OneExpertOfOneIsTheDenseProduct) {
  const ExpertCase c = {50, 2, 1, 600, 70, 0, 0};
  test::TestContext t(3);
  const ExpertData s(t.context, c, WeightKind::kF32, 3);
  t.context.reserve(expert_scratch(3, c.tokens, c.in));
  t.context.reserve(matmul_scratch(3, c.tokens, c.in, c.out));
  std::vector<float> y(static_cast<size_t>(c.tokens * c.out)), dense(y.size());
  const View<const float, 2> x(s.x.data(), c.tokens, c.in);
  const ExpertSource<float> source = {x, true, s.operands, false, false, Compute::kF32};
  ExpertProduct<float> product;
  product.sources = std::span(&source, 1), product.y = View<float, 2>(y.data(), c.tokens, c.out);
  expert_products<float>(t.context, s.routing.view(), std::span<const ExpertProduct<float>>(&product, 1));
  MatmulOutput<float> output;
  output.w = s.operands[0], output.y = View<float, 2>(dense.data(), c.tokens, c.out);
  matmul_nt<float>(t.context, Compute::kF32, x, std::span<const MatmulOutput<float>>(&output, 1));
  EXPECT_EQ(y, dense);
}

TEST(ExpertProducts, RoundedOperandsAreTheReferences) {
  const ExpertCase c = {37, 5, 2, 70, 130, 3};
  ThreadPool one(1);
  Context maker(one);
  for (const WeightKind kind : kWeightKinds) {
    const ExpertData s(maker, c, kind, 5);
    test::expect_same_bits(
        [&](Context& context) {
          std::vector<float> all;
          test::Matrix<float> y(s.routing.count(), c.out), dx(c.tokens, c.in);
          const View<const float, 2> x(s.x.data(), c.tokens, c.in);
          const ExpertSource<float> forward = {x, true, s.operands, false, false, Compute::kBF16};
          const ExpertSource<float> back = {y.in(), false, s.operands, true, false, Compute::kBF16};
          ExpertProduct<float> product;
          product.sources = std::span(&forward, 1), product.y = y.view;
          expert_products<float>(context, s.routing.view(), std::span<const ExpertProduct<float>>(&product, 1));
          product.sources = std::span(&back, 1), product.y = dx.view, product.by_token = true;
          expert_products<float>(context, s.routing.view(), std::span<const ExpertProduct<float>>(&product, 1));
          test::append(all, y.view), test::append(all, dx.view);
          return all;
        },
        "rounded", expert_scratch(7, s.routing.count(), c.in + c.out));
  }
}

TEST(ExpertProducts, MoreRowsThanThePackingHolds) {
  const ExpertCase c = {2600, 3, 2, 1500, 9, 0};
  test::TestContext t(2);
  const ExpertData s(t.context, c, WeightKind::kF32, 6);
  const int64_t rows = s.routing.count();
  const ScratchNeed need = expert_scratch(2, rows, c.in);
  ASSERT_LT(need.shared, static_cast<size_t>(rows * c.in) * sizeof(float));  // else nothing is tested
  t.context.reserve(need);
  std::vector<float> y(static_cast<size_t>(rows * c.out)), dw(static_cast<size_t>(c.experts * 9 * 1500));
  const View<const float, 2> x(s.x.data(), c.tokens, c.in);
  const ExpertSource<float> source = {x, true, s.operands, false, false, Compute::kF32};
  ExpertProduct<float> product;
  product.sources = std::span(&source, 1), product.y = View<float, 2>(y.data(), rows, c.out);
  std::vector<View<float, 2>> views;
  for (int64_t e = 0; e < c.experts; ++e) views.emplace_back(dw.data() + e * c.out * c.in, c.in, c.out);
  const ExpertGradient<float> gradient = {x, View<const float, 2>(y.data(), rows, c.out), true, false, views};
  const auto run = [&] {
    std::fill(dw.begin(), dw.end(), 0.0f);
    expert_products<float>(t.context, s.routing.view(), std::span<const ExpertProduct<float>>(&product, 1));
    expert_gradients<float>(t.context, s.routing.view(), std::span<const ExpertGradient<float>>(&gradient, 1));
    std::vector<float> all = y;
    all.insert(all.end(), dw.begin(), dw.end());
    return all;
  };
  const CpuLevel level = cpu_level();
  const std::vector<float> fast = run();
  set_cpu_level(CpuLevel::kScalar);
  EXPECT_EQ(run(), fast);
  set_cpu_level(level);
}

TEST(ExpertGradients, AreTheContractBitForBit) {
  for (const ExpertCase& c :
       {ExpertCase{37, 5, 2, 70, 130, 3}, ExpertCase{1300, 4, 2, 20, 66, 2, 1}, ExpertCase{40, 3, 1, 5, 3, 1}}) {
    ThreadPool one(1);
    Context maker(one);
    const ExpertData s(maker, c, WeightKind::kRows, 8);
    const int64_t rows = s.routing.count();
    const std::vector<float> dy = flat(rows * c.out, 9), tokens = flat(c.tokens * c.out, 10),
                             start = flat(c.out * c.in, 11);
    const ExpertRows view = s.routing.view();
    // dw = dy^T x: by sorted row and by token, each side gathered once.
    std::vector<float> want;
    for (const bool a_by_token : {false, true}) {
      for (int64_t e = 0; e < c.experts; ++e) {
        if (e == 1) continue;  // has no gradient
        for (int64_t n = 0; n < c.out; ++n) {
          for (int64_t k = 0; k < c.in; ++k) {
            float to = start[static_cast<size_t>(n * c.in + k)];
            const int64_t first = s.routing.offsets[static_cast<size_t>(e)],
                          last = s.routing.offsets[static_cast<size_t>(e) + 1];
            for (int64_t t0 = first; t0 < last; t0 += 512) {
              float sum = 0;
              for (int64_t t = t0; t < std::min(last, t0 + 512); ++t) {
                const float a = a_by_token ? tokens[static_cast<size_t>(view.token(t) * c.out + n)]
                                           : dy[static_cast<size_t>(t * c.out + n)];
                const float b = a_by_token ? s.h[static_cast<size_t>(t * c.in + k)]
                                           : s.x[static_cast<size_t>(view.token(t) * c.in + k)];
                sum = std::fma(a, b, sum);
              }
              to += sum;
            }
            want.push_back(to);
          }
        }
      }
    }
    test::expect_same_bits(
        [&](Context& context) {
          std::vector<float> memory;
          for (int64_t i = 0; i < 2 * c.experts; ++i) memory.insert(memory.end(), start.begin(), start.end());
          std::vector<View<float, 2>> up, down;
          for (int64_t i = 0; i < 2 * c.experts; ++i) {
            View<float, 2> dw(memory.data() + i * c.out * c.in, c.out, c.in);
            if (i % c.experts == 1) dw = {};
            (i < c.experts ? up : down).push_back(dw);
          }
          const ExpertGradient<float> gradients[] = {
              {View<const float, 2>(dy.data(), rows, c.out), View<const float, 2>(s.x.data(), c.tokens, c.in), false,
               true, up},
              {View<const float, 2>(tokens.data(), c.tokens, c.out), View<const float, 2>(s.h.data(), rows, c.in), true,
               false, down}};
          expert_gradients<float>(context, view, gradients);
          std::vector<float> got;
          for (const auto& list : {up, down}) {
            for (const View<float, 2>& dw : list)
              got.insert(got.end(), dw.data(), dw.data() == nullptr ? nullptr : dw.data() + dw.size());
          }
          EXPECT_EQ(got, want);
          return got;
        },
        fmt::format("tokens {}", c.tokens), expert_scratch(7, rows, c.in + c.out));
  }
}

TEST(ExpertWeightGradients, DotsAndScales) {
  const Routing routing(20, 4, 2, 12);
  const int64_t rows = routing.count(), width = 70;
  const std::vector<float> u = flat(rows * width, 13), h = flat(rows * width, 14), weights = flat(rows, 15);
  ExpertRows view = routing.view();
  std::vector<int32_t> dropped = routing.offsets;  // the last rows of the last expert in use are dropped
  for (int32_t& offset : dropped) offset = std::min<int32_t>(offset, static_cast<int32_t>(rows) - 3);
  for (const bool drop : {false, true}) {
    if (drop) view.offsets = dropped;
    test::expect_same_bits(
        [&](Context& context) {
          std::vector<float> du = u, dh = h, dweights(static_cast<size_t>(rows), NAN), all;
          expert_weight_gradients<float>(context, view, weights, View<float, 2>(du.data(), rows, width),
                                         View<float, 2>(dh.data(), rows, width), dweights);
          for (int64_t row = 0; row < rows; ++row) {
            const auto a = static_cast<size_t>(routing.rows[static_cast<size_t>(row)]);
            double want = 0;
            for (int64_t j = 0; j < width && row < view.count(); ++j) {
              const auto at = static_cast<size_t>(row * width + j);
              want += static_cast<double>(u[at]) * static_cast<double>(h[at]);
              EXPECT_EQ(du[at], u[at] * weights[a]);
              EXPECT_EQ(dh[at], h[at] * weights[a]);
            }
            EXPECT_NEAR(dweights[a], want, 1e-5) << row;  // 70 products of order one in f32
          }
          test::append(all, du), test::append(all, dh), test::append(all, dweights);
          return all;
        },
        "weights");
  }
}

}  // namespace
}  // namespace graft
