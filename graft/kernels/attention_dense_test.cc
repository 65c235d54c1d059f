#include "graft/kernels/attention_dense.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

constexpr float kPlusInfinity = std::numeric_limits<float>::infinity();

struct DenseShape {
  int64_t batch, heads, kv_heads, queries, keys, d;
};

template <typename S>
struct DenseInputs {
  std::vector<S> q, k, v;
};
DenseInputs<float> random_inputs(const DenseShape& s, uint64_t seed) {
  return {test::random_values<float>(s.batch * s.heads * s.queries * s.d, seed, 2),
          test::random_values<float>(s.batch * s.kv_heads * s.keys * s.d, seed + 1, 2),
          test::random_values<float>(s.batch * s.kv_heads * s.keys * s.d, seed + 2)};
}
std::vector<f16> to_half(const std::vector<float>& x) {
  std::vector<f16> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = to_f16(x[i]);
  return y;
}
std::vector<float> to_float(const std::vector<f16>& x) {
  std::vector<float> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = graft::to_float(x[i]);
  return y;
}

struct DenseResult {
  std::vector<float> o, lse;
};

template <typename S, typename Kernel>
DenseResult run(Kernel&& kernel, const DenseShape& s, const DenseInputs<S>& in, bool causal, int threads = 2) {
  DenseResult r{std::vector<float>(in.q.size(), 7),
                std::vector<float>(static_cast<size_t>(s.batch * s.heads * s.queries), 7)};
  test::TestContext t(threads);
  t.context.reserve(attention_dense_scratch(s.heads, s.kv_heads, s.queries, s.keys, s.d));
  const View<const S, 4> k(in.k.data(), s.batch, s.kv_heads, s.keys, s.d), v(in.v.data(), k.extents(), k.strides());
  kernel(t.context, View<const S, 4>(in.q.data(), s.batch, s.heads, s.queries, s.d), k, v, causal,
         1 / std::sqrt(static_cast<double>(s.d)), View<float, 4>(r.o.data(), s.batch, s.heads, s.queries, s.d),
         View<float, 3>(r.lse.data(), s.batch, s.heads, s.queries));
  return r;
}

// softmax(q k^T / sqrt d) v in f64, by the formula.
void expect_formula(const DenseShape& s, const DenseInputs<float>& in, bool causal, const DenseResult& got) {
  const auto at = [&](const std::vector<float>& x, int64_t row, int64_t e) {
    return static_cast<double>(x[static_cast<size_t>(row * s.d + e)]);
  };
  for (int64_t row = 0; row < s.batch * s.heads * s.queries; ++row) {
    const int64_t i = row % s.queries, head = row / s.queries;
    const int64_t kv = head / s.heads * s.kv_heads + head % s.heads / (s.heads / s.kv_heads);
    const int64_t end = causal ? std::clamp<int64_t>(i + 1 + s.keys - s.queries, 0, s.keys) : s.keys;
    std::vector<double> p;
    double m = -HUGE_VAL, l = 0;
    for (int64_t j = 0; j < end; ++j) {
      double dot = 0;
      for (int64_t e = 0; e < s.d; ++e) dot += at(in.q, row, e) * at(in.k, kv * s.keys + j, e);
      p.push_back(dot / std::sqrt(static_cast<double>(s.d)));
      m = std::max(m, p.back());
    }
    for (double& x : p) l += x = std::exp(x - m);
    for (int64_t e = 0; e < s.d; ++e) {
      double o = 0;
      for (int64_t j = 0; j < end; ++j) o += p[static_cast<size_t>(j)] / l * at(in.v, kv * s.keys + j, e);
      // 64 to 700 terms of size one, each a dot product of d terms up to 4 in f32: well below 1e-5.
      ASSERT_NEAR(got.o[static_cast<size_t>(row * s.d + e)], o, 1e-5) << row;
    }
    const float lse = got.lse[static_cast<size_t>(row)];
    if (end == 0) {
      ASSERT_EQ(lse, -kPlusInfinity);
    } else {
      ASSERT_NEAR(lse, m + std::log(l), 1e-5);
    }
  }
}

const DenseShape kShapes[] = {{1, 1, 1, 1, 1, 1},     {2, 3, 1, 7, 9, 5},     {1, 4, 2, 9, 9, 16},
                              {2, 2, 2, 70, 130, 24}, {1, 2, 1, 130, 70, 16}, {1, 2, 2, 65, 640, 64},
                              {1, 1, 1, 2, 1100, 8},  {1, 6, 3, 64, 64, 33}};

TEST(AttentionDense, MatchesTheFormula) {
  for (const DenseShape& s : kShapes) {
    const DenseInputs<float> in = random_inputs(s, 3);
    for (const bool causal : {false, true}) expect_formula(s, in, causal, run<float>(attention_sdpa, s, in, causal));
  }
}

TEST(AttentionDense, HalvesGiveTheBitsOfTheirWidenedValues) {
  for (const DenseShape& s : kShapes) {
    const DenseInputs<float> in = random_inputs(s, 5);
    const DenseInputs<f16> half{to_half(in.q), to_half(in.k), to_half(in.v)};
    const DenseInputs<float> wide{to_float(half.q), to_float(half.k), to_float(half.v)};
    for (const bool causal : {false, true}) {
      const DenseResult want = run<float>(attention_sdpa, s, wide, causal);
      for (const int threads : {1, 3}) {
        const DenseResult got = run<f16>(s.kv_heads == 1 ? attention_mqa : attention_gqa, s, half, causal, threads);
        EXPECT_EQ(got.o, want.o);
        EXPECT_EQ(got.lse, want.lse);
      }
    }
  }
}

// Every value of f16: widening in vectors and one by one agree.
TEST(AttentionDense, AllHalvesAreWidenedExactly) {
  constexpr int64_t kD = 64, kKeys = 1;  // one key: its value is the result
  for (int first = 0; first < 65536; first += kD) {
    std::vector<f16> v(kD), zero(kD, f16{0});
    for (int e = 0; e < kD; ++e) v[static_cast<size_t>(e)] = f16{static_cast<uint16_t>(first + e)};
    const DenseResult got = run<f16>(attention_flash, {1, 1, 1, 1, kKeys, kD}, {zero, zero, v}, false, 1);
    const std::vector<float> want = to_float(v);
    for (size_t e = 0; e < want.size(); ++e) {
      ASSERT_TRUE(got.o[e] == want[e] || (got.o[e] != got.o[e] && want[e] != want[e])) << first + static_cast<int>(e);
    }
  }
}

TEST(AttentionDense, RowsThatSeeNothingAreZero) {
  const DenseShape s{2, 2, 1, 11, 4, 8};
  const DenseResult got = run<float>(attention_sdpa, s, random_inputs(s, 9), true);
  for (int64_t row = 0; row < 2 * 2 * 11; ++row) {
    const bool blind = row % 11 < 7;
    EXPECT_EQ(got.lse[static_cast<size_t>(row)] == -kPlusInfinity, blind) << row;
    for (int64_t e = 0; blind && e < 8; ++e) EXPECT_EQ(got.o[static_cast<size_t>(row * 8 + e)], 0);
  }
  const DenseShape none{1, 2, 2, 3, 0, 8};
  const DenseResult empty = run<float>(attention_sdpa, none, random_inputs(none, 9), false);
  EXPECT_EQ(empty.o, std::vector<float>(48, 0));
  EXPECT_EQ(empty.lse, std::vector<float>(6, -kPlusInfinity));
}

// A row of the mask stands for a shorter call.
TEST(AttentionDense, CausalRowIsTheUnmaskedAttentionOfItsKeys) {
  const DenseShape s{1, 1, 1, 40, 600, 16}, last{1, 1, 1, 1, 577, 16};
  DenseInputs<float> in = random_inputs(s, 11);
  const DenseResult all = run<float>(attention_sdpa, s, in, true);
  constexpr int64_t kRow = 16;  // sees 16 + 1 + 560 keys
  in.q = std::vector<float>(in.q.begin() + kRow * 16, in.q.begin() + (kRow + 1) * 16);
  const DenseResult one = run<float>(attention_sdpa, last, in, false);
  EXPECT_EQ(one.o, std::vector<float>(all.o.begin() + kRow * 16, all.o.begin() + (kRow + 1) * 16));
  EXPECT_EQ(one.lse[0], all.lse[kRow]);
}

TEST(AttentionDense, StridesAreFree) {
  const DenseShape s{2, 4, 2, 20, 30, 8};
  const DenseInputs<float> in = random_inputs(s, 13);
  const DenseResult want = run<float>(attention_sdpa, s, in, true);
  // The same as [B, L, H, D], as projections lie.
  const auto turned = [&](const std::vector<float>& x, int64_t heads, int64_t length) {
    std::vector<float> y(x.size());
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
      const int64_t e = i % s.d, l = i / s.d % length, h = i / s.d / length % heads, b = i / s.d / length / heads;
      y[static_cast<size_t>(((b * length + l) * heads + h) * s.d + e)] = x[static_cast<size_t>(i)];
    }
    return y;
  };
  const auto view = [&](auto* data, int64_t heads, int64_t length) {
    return View<std::remove_pointer_t<decltype(data)>, 4>(data, {s.batch, heads, length, s.d},
                                                          {length * heads * s.d, s.d, heads * s.d, 1});
  };
  const std::vector<float> q = turned(in.q, 4, 20), k = turned(in.k, 2, 30), v = turned(in.v, 2, 30);
  std::vector<float> o(q.size());
  test::TestContext t(2);
  t.context.reserve(attention_dense_scratch(4, 2, 20, 30, 8));
  attention_sdpa(t.context, view(q.data(), 4, 20), view(k.data(), 2, 30), view(v.data(), 2, 30), true,
                 1 / std::sqrt(8.0), view(o.data(), 4, 20), {});
  EXPECT_EQ(o, turned(want.o, 4, 20));
}

TEST(AttentionDense, OneHeadIsSdpa) {
  const DenseShape s{1, 1, 1, 70, 90, 16};
  const DenseInputs<float> in = random_inputs(s, 15);
  const DenseResult want = run<float>(attention_sdpa, s, in, false);
  std::vector<float> o(in.q.size()), lse(70);
  test::TestContext t(2);
  t.context.reserve(attention_dense_scratch(1, 1, 70, 90, 16));
  fused_attention_softmax_v(t.context, View<const float, 2>(in.q.data(), 70, 16),
                            View<const float, 2>(in.k.data(), 90, 16), View<const float, 2>(in.v.data(), 90, 16), 0.25,
                            View<float, 2>(o.data(), 70, 16), lse);
  EXPECT_EQ(o, want.o);
  EXPECT_EQ(lse, want.lse);
}

// A call of attention_gqa with inputs of these shapes, prepared.
void prepare(std::string_view name, std::vector<int64_t> q, std::vector<int64_t> k, std::vector<int64_t> v,
             DType dtype = DType::kF16, std::string_view scale = "1") {
  KernelCall call;
  call.add_input("q", dtype, std::move(q));
  call.add_input("k", dtype, std::move(k));
  call.add_input("v", dtype, std::move(v));
  call.set_parameter("scale", scale);
  find_kernel(name)->prepare(call);
}

TEST(AttentionDense, WrongCallsAreErrors) {
  EXPECT_NO_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 5, 8}));
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 3, 5, 8}, {1, 3, 5, 8}), Error);  // 4 heads over 3
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 0, 5, 8}, {1, 0, 5, 8}), Error);
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {2, 2, 5, 8}, {2, 2, 5, 8}), Error);
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 6, 8}), Error);
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 0}, {1, 2, 5, 0}, {1, 2, 5, 0}), Error);
  EXPECT_THROW(prepare("attention_gqa", {4, 3, 8}, {2, 5, 8}, {2, 5, 8}), Error);
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 5, 8}, DType::kF32), Error);
  EXPECT_THROW(prepare("attention_gqa", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 5, 8}, DType::kF16, "nan"), Error);
  EXPECT_THROW(prepare("attention_flash", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 5, 8}), Error);
  EXPECT_THROW(prepare("attention_mqa", {1, 4, 3, 8}, {1, 2, 5, 8}, {1, 2, 5, 8}), Error);
}

}  // namespace
}  // namespace graft
