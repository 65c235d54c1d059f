#include "graft/kernels/gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>

#include "graft/kernels/gemm_test_util.h"

namespace graft {
namespace {

using test::GemmMatrix;
using test::rounded;
using test::same_bits;

constexpr float kInfinite = std::numeric_limits<float>::infinity();

// The contract, written once more and as plainly as possible: blocks of 512, chains from +0, sums of blocks ascending.
template <typename T, typename F>
T folded(int64_t n, F&& product_add) {
  T total = 0;
  for (int64_t begin = 0; begin < n; begin += 512) {
    T sum = 0;
    for (int64_t k = begin; k < std::min(n, begin + 512); ++k) sum = product_add(k, sum);
    total = begin == 0 ? sum : total + sum;
  }
  return total;
}

enum class Kind { kRows, kF32, kBF16, kF16 };
constexpr Kind kKinds[] = {Kind::kRows, Kind::kF32, Kind::kBF16, Kind::kF16};
const char* name(Kind kind) {
  return kind == Kind::kRows ? "rows" : kind == Kind::kF32 ? "f32" : kind == Kind::kBF16 ? "bf16" : "f16";
}
DType dtype(Kind kind) { return kind == Kind::kBF16 ? DType::kBF16 : kind == Kind::kF16 ? DType::kF16 : DType::kF32; }

// One W in a given form, with the values it holds.
struct TestWeight {
  GemmMatrix<float> rows;  // what the form holds, widened
  Weight packed;
  Kind kind;
  TestWeight(Context& context, Kind k, GemmMatrix<float> values) : rows(std::move(values)), kind(k) {
    if (kind != Kind::kRows) packed = test::pack(context, dtype(kind), rows);
    for (float& x : rows.values) x = rounded(dtype(kind), x);
  }
  Operand<float> operand() const {
    return kind == Kind::kRows ? Operand<float>{nullptr, rows.cview()} : Operand<float>{&packed, {}};
  }
};

struct NtCase {
  int64_t m, n, k;
  bool bias = false, residual = false, alias = false;
  float scale = 1;
  int ranks = 0;  // 0: no adapter; 1: one over all rows; 3: three ranges with a gap
  int64_t rank = 4;
  int64_t padding = 0;
};

struct Nt {
  NtCase c;
  GemmMatrix<float> x, residual, y;
  std::vector<float> bias;
  std::vector<GemmMatrix<float>> h, b;
  std::vector<LoraTerm<float>> terms;
  Nt(const NtCase& nt_case, uint64_t seed) : c(nt_case) {
    test::Uniform random(seed);
    x = random.matrix<float>(c.m, c.k, c.padding);
    residual = random.matrix<float>(c.m, c.n, c.padding);
    for (int64_t o = 0; o < c.n && c.bias; ++o) bias.push_back(random.next());
    std::vector<std::pair<int64_t, int64_t>> ranges;
    if (c.ranks == 1) ranges = {{0, c.m}};
    if (c.ranks == 3) ranges = {{0, c.m / 3}, {c.m / 3, c.m / 2}, {c.m / 2 + 1, c.m}};
    for (const auto& [begin, end] : ranges) {
      if (begin >= end) continue;
      h.push_back(random.matrix<float>(end - begin, c.rank, c.padding));
      b.push_back(random.matrix<float>(c.n, c.rank, c.padding));
      terms.push_back({begin, end, {}, {}});
    }
    for (size_t i = 0; i < terms.size(); ++i) {
      terms[i].h = h[i].cview();
      terms[i].b = b[i].cview();
    }
  }
  void run(Context& context, const Operand<float>& w, Compute compute = Compute::kF32) {
    y = GemmMatrix<float>(c.m, c.n, c.padding);
    if (c.alias) y = residual;
    MatmulOutput<float> output;
    output.w = w;
    output.terms = terms;
    output.bias = bias;
    if (c.residual) output.residual = c.alias ? y.cview() : residual.cview();
    output.scale = c.scale;
    output.y = y.view();
    context.reserve(matmul_scratch(context.num_threads(), c.m, c.k, c.n));
    matmul_nt<float>(context, compute, x.cview(), std::span<const MatmulOutput<float>>(&output, 1));
  }
  float expected(const GemmMatrix<float>& w, int64_t t, int64_t o) const {
    float value = folded<float>(c.k, [&](int64_t k, float s) { return std::fma(x.at(t, k), w.at(o, k), s); });
    if (c.scale != 1) value *= c.scale;
    for (size_t i = 0; i < terms.size(); ++i) {
      if (t < terms[i].row_begin || t >= terms[i].row_end) continue;
      const int64_t row = t - terms[i].row_begin;
      for (int64_t r0 = 0; r0 < c.rank; r0 += 512) {
        float sum = 0;
        for (int64_t r = r0; r < std::min(c.rank, r0 + 512); ++r) sum = std::fma(h[i].at(row, r), b[i].at(o, r), sum);
        value += sum;
      }
    }
    if (c.bias) value += bias[static_cast<size_t>(o)];
    if (c.residual) value += residual.at(t, o);
    return value;
  }
};

std::string text(const NtCase& c, Kind kind, CpuLevel level, int threads) {
  return fmt::format("m {} n {} k {} {} level {} threads {} ranks {} rank {}", c.m, c.n, c.k, name(kind),
                     cpu_level_name(level), threads, c.ranks, c.rank);
}

void check_nt(const NtCase& c, uint64_t seed, std::span<const int> thread_counts) {
  const test::LevelGuard guard;
  for (Kind kind : kKinds) {
    ThreadPool one(1);
    Context first(one);
    test::Uniform random(seed + 1000);
    const TestWeight w(first, kind, random.matrix<float>(c.n, c.k, kind == Kind::kRows ? c.padding : 0));
    Nt nt(c, seed);
    GemmMatrix<float> want(c.m, c.n, c.padding);
    if (c.alias) want = nt.residual;
    for (int64_t t = 0; t < c.m; ++t) {
      for (int64_t o = 0; o < c.n; ++o) want.at(t, o) = nt.expected(w.rows, t, o);
    }
    for (CpuLevel level : cpu_levels_available()) {
      for (int threads : thread_counts) {
        set_cpu_level(level);
        ThreadPool pool(threads);
        Context context(pool);
        nt.run(context, w.operand());
        ASSERT_TRUE(same_bits(nt.y.values, want.values)) << text(c, kind, level, threads);
      }
    }
  }
}

constexpr int kOneAndThree[] = {1, 3};

TEST(MatmulNt, SameBitsAsContractForEveryShape) {
  uint64_t seed = 1;
  for (int64_t m : {0, 1, 2, 5, 6, 11, 12, 13, 64, 100}) {
    for (int64_t n : {1, 31, 32, 33, 63, 64, 65, 200}) {
      const int64_t ks[] = {1, 2, 3, 65};
      NtCase c{m, n, ks[seed % 4]};
      check_nt(c, seed, std::span<const int>(kOneAndThree).subspan(seed % 2, 1));
      ++seed;
    }
  }
}

TEST(MatmulNt, SummedDimensionIsCutAt512) {
  uint64_t seed = 100;
  for (int64_t k : {0, 1, 2, 3, 511, 512, 513, 1024, 1100}) {
    for (int64_t m : {1, 3, 13}) check_nt({m, 65, k}, seed++, kOneAndThree);
  }
}

TEST(MatmulNt, FewRowsAgainstManyPanels) {  // several panels at once, with a last one that is not whole
  uint64_t seed = 150;
  for (int64_t m : {1, 2, 3, 4, 5, 6, 7}) {
    for (int64_t n : {1100, 1056}) {
      NtCase c{m, n, m == 1 ? 515 : 37};
      c.ranks = n == 1100 ? 1 : 0;
      c.bias = n == 1056;
      c.scale = m % 2 == 0 ? 0.5f : 1.0f;
      check_nt(c, seed, std::span<const int>(kOneAndThree).subspan(seed % 2, 1));
      ++seed;
    }
  }
}

TEST(MatmulNt, RowsPackedInPieces) {  // more rows at a power-of-two distance than scratch holds at a time
  NtCase c{140, 5, 16384};
  c.ranks = 3;
  c.bias = c.residual = c.alias = true;
  check_nt(c, 180, kOneAndThree);
}

TEST(MatmulNt, EpilogueInOrder) {
  uint64_t seed = 200;
  for (int64_t m : {1, 4, 12, 29}) {
    for (int ranks : {0, 1, 3}) {
      for (int64_t rank : {1, 8, 17}) {
        NtCase c{m, 70, 520};
        c.bias = seed % 2 == 0;
        c.residual = seed % 3 != 0;
        c.alias = seed % 3 == 2;
        c.scale = seed % 5 == 0 ? 0.3f : 1.0f;
        c.ranks = ranks;
        c.rank = rank;
        c.padding = static_cast<int64_t>(seed % 4);
        check_nt(c, seed++, kOneAndThree);
      }
    }
  }
  NtCase wide{9, 40, 30};
  wide.ranks = 1;
  wide.rank = 600;  // a rank above 512 is cut as well
  check_nt(wide, seed, kOneAndThree);
}

TEST(MatmulNt, ManyOutputsShareX) {
  const test::LevelGuard guard;
  test::Uniform random(7);
  const int64_t k = 530, sizes[] = {64, 16, 100};
  for (int64_t m : {2, 37}) {
    const GemmMatrix<float> x = random.matrix<float>(m, k);
    for (CpuLevel level : cpu_levels_available()) {
      set_cpu_level(level);
      for (int threads : {1, 2, 7}) {
        ThreadPool pool(threads);
        Context context(pool);
        context.reserve(matmul_scratch(threads, m, k, 180));
        test::Uniform weights(8);
        std::vector<TestWeight> w;
        std::vector<GemmMatrix<float>> y;
        std::vector<MatmulOutput<float>> outputs(3);
        w.reserve(3);
        y.reserve(3);
        for (size_t i = 0; i < 3; ++i) {
          w.emplace_back(context, i == 1 ? Kind::kRows : Kind::kBF16, weights.matrix<float>(sizes[i], k));
          y.emplace_back(m, sizes[i]);
          outputs[i].w = w[i].operand();
          outputs[i].y = y[i].view();
        }
        matmul_nt<float>(context, Compute::kF32, x.cview(), outputs);
        for (size_t i = 0; i < 3; ++i) {
          for (int64_t t = 0; t < m; ++t) {
            for (int64_t o = 0; o < sizes[i]; ++o) {
              const float want =
                  folded<float>(k, [&](int64_t j, float s) { return std::fma(x.at(t, j), w[i].rows.at(o, j), s); });
              ASSERT_EQ(y[i].at(t, o), want) << cpu_level_name(level) << " output " << i;
            }
          }
        }
      }
    }
  }
}

TEST(MatmulNt, NanAndInfinityGoWhereTheyBelong) {
  const test::LevelGuard guard;
  for (Kind kind : kKinds) {
    for (int64_t m : {3, 20}) {
      for (CpuLevel level : cpu_levels_available()) {
        for (Compute compute : {Compute::kF32, Compute::kBF16}) {
          set_cpu_level(level);
          ThreadPool pool(2);
          Context context(pool);
          test::Uniform random(3);
          GemmMatrix<float> rows = random.matrix<float>(70, 33);
          for (float& v : rows.values) v = std::fabs(v) + 0.5f;
          rows.at(65, 32) = NAN;
          rows.at(2, 5) = -kInfinite;
          const TestWeight w(context, kind, rows);
          Nt nt({m, 70, 33}, 9);
          for (float& v : nt.x.values) v = std::fabs(v) + 0.5f;
          nt.x.at(1, 7) = kInfinite;
          nt.run(context, w.operand(), compute);
          for (int64_t t = 0; t < m; ++t) {
            for (int64_t o = 0; o < 70; ++o) {
              const float got = nt.y.at(t, o);
              if (o == 65 || (t == 1 && o == 2)) {
                ASSERT_TRUE(std::isnan(got)) << t << " " << o;
              } else if (o == 2) {
                ASSERT_EQ(got, -kInfinite);
              } else if (t == 1) {
                ASSERT_EQ(got, kInfinite);
              } else {
                ASSERT_TRUE(std::isfinite(got));
              }
            }
          }
        }
      }
    }
  }
}

struct NnCase {
  int64_t m, k;
  std::vector<int64_t> outs;
  bool accumulate = false;
  int64_t padding = 0;
};

void check_nn(const NnCase& c, uint64_t seed, std::span<const int> thread_counts) {
  const test::LevelGuard guard;
  for (Kind kind : kKinds) {
    ThreadPool one(1);
    Context first(one);
    test::Uniform random(seed);
    std::vector<TestWeight> w;
    std::vector<GemmMatrix<float>> dy;
    w.reserve(c.outs.size());
    dy.reserve(c.outs.size());
    std::vector<MatmulSource<float>> sources;
    int64_t widest = 0;
    for (int64_t out : c.outs) {
      w.emplace_back(first, kind, random.matrix<float>(out, c.k, kind == Kind::kRows ? c.padding : 0));
      dy.push_back(random.matrix<float>(c.m, out, c.padding));
      sources.push_back({dy.back().cview(), w.back().operand()});
      widest = std::max(widest, out);
    }
    const GemmMatrix<float> start = random.matrix<float>(c.m, c.k, c.padding);
    GemmMatrix<float> want = start;
    for (int64_t t = 0; t < c.m; ++t) {
      for (int64_t k = 0; k < c.k; ++k) {
        bool add = c.accumulate;
        for (size_t i = 0; i < sources.size(); ++i) {
          const float value = folded<float>(
              c.outs[i], [&](int64_t o, float s) { return std::fma(dy[i].at(t, o), w[i].rows.at(o, k), s); });
          want.at(t, k) = add ? want.at(t, k) + value : value;
          add = true;
        }
      }
    }
    for (CpuLevel level : cpu_levels_available()) {
      for (int threads : thread_counts) {
        set_cpu_level(level);
        ThreadPool pool(threads);
        Context context(pool);
        context.reserve(matmul_scratch(threads, c.m, c.k, widest));
        GemmMatrix<float> dx = start;
        matmul_nn<float>(context, Compute::kF32, sources, c.accumulate, dx.view());
        ASSERT_TRUE(same_bits(dx.values, want.values))
            << "m " << c.m << " k " << c.k << " out " << c.outs[0] << " " << name(kind) << " " << cpu_level_name(level)
            << " threads " << threads;
      }
    }
  }
}

TEST(MatmulNn, SameBitsAsContractForEveryShape) {
  uint64_t seed = 300;
  for (int64_t m : {0, 1, 2, 5, 6, 11, 12, 13, 64, 100}) {
    for (int64_t k : {1, 15, 16, 31, 33, 63, 64, 65, 130}) {
      const int64_t outs[] = {1, 33, 64, 70};
      check_nn({m, k, {outs[seed % 4]}, seed % 3 == 0, static_cast<int64_t>(seed % 3)}, seed,
               std::span<const int>(kOneAndThree).subspan(seed % 2, 1));
      ++seed;
    }
  }
}

TEST(MatmulNn, SummedDimensionIsCutAt512AndSourcesFollowInOrder) {
  uint64_t seed = 400;
  for (int64_t out : {511, 512, 513, 1100}) {
    check_nn({13, 66, {out, 40}, seed % 2 == 0, 1}, seed, kOneAndThree);
    ++seed;
  }
  check_nn({14, 50, {7, 600, 64}, true}, seed, kOneAndThree);
  check_nn({140, 5, {16384, 30}, false}, seed, kOneAndThree);  // packed in pieces
}

struct TnCase {
  int64_t tokens, n, k;
  float scale = 1;
  bool accumulate = false;
  int64_t padding = 0;
};

void check_tn(const TnCase& c, uint64_t seed, std::span<const int> thread_counts) {
  const test::LevelGuard guard;
  test::Uniform random(seed);
  const GemmMatrix<float> a = random.matrix<float>(c.tokens, c.n, c.padding),
                          b = random.matrix<float>(c.tokens, c.k, c.padding);
  const GemmMatrix<float> start = random.matrix<float>(c.n, c.k);
  GemmMatrix<float> want = start;
  for (int64_t n = 0; n < c.n; ++n) {
    for (int64_t k = 0; k < c.k; ++k) {
      if (!c.accumulate) want.at(n, k) = 0;
      for (int64_t begin = 0; begin < c.tokens; begin += 512) {
        float sum = 0;
        for (int64_t t = begin; t < std::min(c.tokens, begin + 512); ++t) sum = std::fma(a.at(t, n), b.at(t, k), sum);
        if (c.scale != 1) sum *= c.scale;
        want.at(n, k) = begin == 0 && !c.accumulate ? sum : want.at(n, k) + sum;
      }
    }
  }
  for (CpuLevel level : cpu_levels_available()) {
    for (int threads : thread_counts) {
      set_cpu_level(level);
      ThreadPool pool(threads);
      Context context(pool);
      context.reserve(matmul_scratch(threads, c.tokens, c.k, c.n));
      GemmMatrix<float> dw = start;
      matmul_tn<float>(context, a.cview(), b.cview(), c.scale, c.accumulate, dw.view());
      ASSERT_TRUE(same_bits(dw.values, want.values)) << "tokens " << c.tokens << " n " << c.n << " k " << c.k << " "
                                                     << cpu_level_name(level) << " threads " << threads;
    }
  }
}

TEST(MatmulTn, SameBitsAsContractForEveryShape) {
  uint64_t seed = 500;
  for (int64_t tokens : {0, 1, 5, 64, 511, 512, 513, 1100}) {
    for (int64_t n : {1, 8, 12, 13, 40}) {
      for (int64_t k : {1, 31, 32, 65}) {
        TnCase c{tokens, n, k};
        c.scale = seed % 2 == 0 ? 1.0f : 0.7f;
        c.accumulate = seed % 3 == 0;
        c.padding = static_cast<int64_t>(seed % 3);
        check_tn(c, seed, std::span<const int>(kOneAndThree).subspan(seed % 2, 1));
        ++seed;
      }
    }
  }
}

TEST(Matmul, Float64IsTheReference) {
  ThreadPool pool(3);
  Context context(pool);
  test::Uniform random(11);
  const GemmMatrix<double> x = random.matrix<double>(7, 600), w = random.matrix<double>(70, 600),
                           dy = random.matrix<double>(7, 70);
  GemmMatrix<double> y(7, 70), dx(7, 600), dw(70, 600);
  MatmulOutput<double> output;
  output.w = {nullptr, w.cview()};
  output.y = y.view();
  matmul_nt<double>(context, Compute::kF32, x.cview(), std::span<const MatmulOutput<double>>(&output, 1));
  const MatmulSource<double> source = {dy.cview(), output.w};
  matmul_nn<double>(context, Compute::kF32, std::span<const MatmulSource<double>>(&source, 1), false, dx.view());
  matmul_tn<double>(context, dy.cview(), x.cview(), 1.0, false, dw.view());
  for (int64_t t = 0; t < 7; ++t) {
    for (int64_t o = 0; o < 70; ++o) {
      ASSERT_EQ(y.at(t, o),
                folded<double>(600, [&](int64_t k, double s) { return std::fma(x.at(t, k), w.at(o, k), s); }));
    }
    for (int64_t k = 0; k < 600; ++k) {
      ASSERT_EQ(dx.at(t, k),
                folded<double>(70, [&](int64_t o, double s) { return std::fma(dy.at(t, o), w.at(o, k), s); }));
    }
  }
  for (int64_t o = 0; o < 70; ++o) {
    for (int64_t k = 0; k < 600; ++k) {
      ASSERT_EQ(dw.at(o, k),
                folded<double>(7, [&](int64_t t, double s) { return std::fma(dy.at(t, o), x.at(t, k), s); }));
    }
  }
}

TEST(Matmul, Bf16ComputeIsNearFloat64AndTheSameForAnyBatchAndThreads) {
  const test::LevelGuard guard;
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{130, 1101}, {1100, 71}}) {
    const int64_t m = 37;
    test::Uniform random(21);
    const GemmMatrix<float> x = random.matrix<float>(m, k), dy = random.matrix<float>(m, n),
                            values = random.matrix<float>(n, k);
    for (CpuLevel level : cpu_levels_available()) {
      set_cpu_level(level);
      for (Kind kind : kKinds) {
        GemmMatrix<float> y0, dx0;
        ThreadPool one(1);
        Context first(one);
        const TestWeight w(first, kind, values);
        for (int threads : {1, 3}) {
          for (int64_t rows :
               {m, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{6}, int64_t{13}, int64_t{16}, int64_t{17}}) {
            ThreadPool pool(threads);
            Context context(pool);
            context.reserve(matmul_scratch(threads, rows, k, n));
            GemmMatrix<float> y(rows, n), dx(rows, k);
            MatmulOutput<float> output;
            output.w = w.operand();
            output.y = y.view();
            const View<const float, 2> xs(x.values.data(), rows, k), dys(dy.values.data(), rows, n);
            matmul_nt<float>(context, Compute::kBF16, xs, std::span<const MatmulOutput<float>>(&output, 1));
            const MatmulSource<float> source = {dys, output.w};
            matmul_nn<float>(context, Compute::kBF16, std::span<const MatmulSource<float>>(&source, 1), false,
                             dx.view());
            if (rows == m && threads == 1) {
              y0 = y;
              dx0 = dx;
              const auto near = [&](int64_t terms, auto&& a, auto&& b, double got) {
                double want = 0, magnitude = 0;
                for (int64_t j = 0; j < terms; ++j) {
                  const double p =
                      static_cast<double>(to_float(to_bf16(a(j)))) * static_cast<double>(to_float(to_bf16(b(j))));
                  want += p;
                  magnitude += std::fabs(p);
                }
                // Products of bf16 are exact in f32; n roundings of partial sums, each at most 2^-24 (2^-23 where the
                // dot product truncates) of a partial sum that |p| bounds, and rounding errors that mostly cancel: 64
                // of them is ample.
                EXPECT_NEAR(got, want, 64 * 0x1p-23 * magnitude) << cpu_level_name(level) << " " << name(kind);
              };
              for (int64_t t = 0; t < m; t += 5) {
                for (int64_t o = 0; o < n; o += 3) {
                  near(
                      k, [&](int64_t j) { return x.at(t, j); }, [&](int64_t j) { return w.rows.at(o, j); }, y.at(t, o));
                }
                for (int64_t j = 0; j < k; j += 7) {
                  near(
                      n, [&](int64_t o) { return dy.at(t, o); }, [&](int64_t o) { return w.rows.at(o, j); },
                      dx.at(t, j));
                }
              }
            } else {
              ASSERT_TRUE(same_bits(y.values.data(), y0.values.data(), y.values.size()))
                  << cpu_level_name(level) << " " << name(kind) << " rows " << rows << " threads " << threads;
              ASSERT_TRUE(same_bits(dx.values.data(), dx0.values.data(), dx.values.size()))
                  << cpu_level_name(level) << " " << name(kind) << " rows " << rows << " threads " << threads;
            }
          }
        }
      }
    }
  }
}

TEST(Matmul, EmptySumsAreZero) {
  ThreadPool pool(2);
  Context context(pool);
  context.reserve(matmul_scratch(2, 5, 8, 8));
  GemmMatrix<float> y(5, 8), dw(8, 8);
  const GemmMatrix<float> x(5, 0), w(8, 0), a(0, 8);
  MatmulOutput<float> output;
  output.w = {nullptr, w.cview()};
  output.y = y.view();
  matmul_nt<float>(context, Compute::kF32, x.cview(), std::span<const MatmulOutput<float>>(&output, 1));
  matmul_tn<float>(context, a.cview(), a.cview(), 1.0f, false, dw.view());
  for (float v : y.values) EXPECT_EQ(v, 0.0f);
  for (float v : dw.values) EXPECT_EQ(v, 0.0f);
}

}  // namespace
}  // namespace graft
