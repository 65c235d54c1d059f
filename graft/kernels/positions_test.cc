#include "graft/kernels/positions.h"

#include "graft/kernels/attention_dense.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/rope.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

struct Angles {
  std::vector<float> cos, sin;
};
Angles precompute(const RopeAngles& angles, int64_t length, int64_t half, int threads = 2) {
  Angles a{std::vector<float>(static_cast<size_t>(length * half)),
           std::vector<float>(static_cast<size_t>(length * half))};
  test::TestContext t(threads);
  t.context.reserve(rope_precompute_scratch(length, half));
  rope_precompute(t.context, angles, View<float, 2>(a.cos.data(), length, half),
                  View<float, 2>(a.sin.data(), length, half));
  return a;
}

TEST(Positions, AnglesAreThoseOfTheFormula) {
  using Scaling = RopeAngles::Scaling;
  for (const RopeAngles& angles :
       {RopeAngles{}, RopeAngles{100000, 10000, Scaling::kNone, 1}, RopeAngles{-77, 500000, Scaling::kLinear, 3},
        RopeAngles{12345678, 10000, Scaling::kNtk, 4}}) {
    for (const int64_t length : {1, 31, 32, 33, 1025, 2100}) {
      constexpr int64_t kHalf = 20;
      const Angles got = precompute(angles, length, kHalf);
      for (int64_t i = 0; i < length; ++i) {
        for (int64_t j = 0; j < kHalf; ++j) {
          const double base =
              angles.scaling == Scaling::kNtk ? angles.base * std::pow(angles.factor, 40.0 / 38) : angles.base;
          const double p =
              static_cast<double>(angles.start + i) / (angles.scaling == Scaling::kLinear ? angles.factor : 1);
          const double angle = p * std::pow(base, -static_cast<double>(2 * j) / 40);
          ASSERT_NEAR(got.cos[static_cast<size_t>(i * kHalf + j)], std::cos(angle), 1e-7) << i << " " << j;
          ASSERT_NEAR(got.sin[static_cast<size_t>(i * kHalf + j)], std::sin(angle), 1e-7) << i << " " << j;
        }
      }
    }
  }
}

// Where a table begins changes nothing but the last bit.
TEST(Positions, TablesAgreeWhereTheyOverlap) {
  const Angles all = precompute({}, 1500, 8), late = precompute({1400, 10000, RopeAngles::Scaling::kNone, 1}, 100, 8);
  for (size_t i = 0; i < late.cos.size(); ++i) {
    EXPECT_NEAR(late.cos[i], all.cos[1400 * 8 + i], 6e-8);
    EXPECT_NEAR(late.sin[i], all.sin[1400 * 8 + i], 6e-8);
  }
}

// Training's rope and rope_apply are one function.
TEST(Positions, ApplyGivesTheBitsOfRope) {
  constexpr int64_t kBatch = 2, kLength = 21, kHeads = 3, kD = 24;
  const RopeTable table = make_rope_table({.head_dim = kD}, kLength);
  const std::vector<float> x = test::random_values<float>(kBatch * kLength * kHeads * kD, 1);
  std::vector<int32_t> positions;
  for (int64_t b = 0; b < kBatch; ++b) {
    for (int32_t l = 0; l < kLength; ++l) positions.push_back(l);
  }
  test::TestContext t(2);
  for (const bool interleaved : {false, true}) {
    std::vector<float> want(x.size()), got(x.size());
    rope<float>(t.context, View<const float, 3>(x.data(), kBatch * kLength, kHeads, kD), positions, table, interleaved,
                false, View<float, 3>(want.data(), kBatch * kLength, kHeads, kD));
    rope_apply(t.context, View<const float, 4>(x.data(), kBatch, kLength, kHeads, kD),
               View<const float, 2>(table.cos.data(), kLength, kD / 2),
               View<const float, 2>(table.sin.data(), kLength, kD / 2), interleaved,
               View<float, 4>(got.data(), kBatch, kLength, kHeads, kD));
    EXPECT_EQ(got, want);
  }
}

// Outputs that leave the cache are stored past it.
TEST(Positions, LargeOutputsHaveTheBitsOfSmallOnes) {
  constexpr int64_t kLength = 1100, kHeads = 32, kD = 128, kHalf = kD / 2;  // 4.5 M elements
  const std::vector<float> x = test::random_values<float>(kLength * kHeads * kD, 2);
  const Angles a = precompute({}, kLength, kHalf);
  test::TestContext t(2);
  std::vector<float> y(x.size() + 1), part(kHeads * kD);
  for (const int64_t offset : {0, 1}) {  // vectors of y aligned or not
    rope_apply(t.context, View<const float, 4>(x.data(), 1, kLength, kHeads, kD),
               View<const float, 2>(a.cos.data(), kLength, kHalf), View<const float, 2>(a.sin.data(), kLength, kHalf),
               false, View<float, 4>(y.data() + offset, 1, kLength, kHeads, kD));
    for (const int64_t row : {int64_t{0}, int64_t{1}, kLength / 2, kLength - 1}) {
      rope_apply(t.context, View<const float, 4>(x.data() + row * kHeads * kD, 1, 1, kHeads, kD),
                 View<const float, 2>(a.cos.data() + row * kHalf, 1, kHalf),
                 View<const float, 2>(a.sin.data() + row * kHalf, 1, kHalf), false,
                 View<float, 4>(part.data(), 1, 1, kHeads, kD));
      EXPECT_EQ(part, std::vector<float>(y.begin() + offset + row * kHeads * kD,
                                         y.begin() + offset + (row + 1) * kHeads * kD));
    }
  }
}

TEST(Positions, SlopesOfAnyNumberOfHeads) {
  const auto slopes = [](size_t heads) {
    std::vector<float> s(heads);
    alibi_slopes(s);
    return s;
  };
  EXPECT_EQ(slopes(0), std::vector<float>{});
  EXPECT_EQ(slopes(1), std::vector<float>{0x1p-8f});
  EXPECT_EQ(slopes(4), (std::vector<float>{0x1p-2f, 0x1p-4f, 0x1p-6f, 0x1p-8f}));
  EXPECT_EQ(slopes(6), (std::vector<float>{0x1p-2f, 0x1p-4f, 0x1p-6f, 0x1p-8f, 0x1p-1f, 0x1p-3f}));
}

TEST(Positions, AlibiLowersDistantKeysAndRaisesLaterOnes) {
  // Two queries at the end of three keys: query 0 stands at key 1.
  const std::vector<float> scores(6, 1.0f);
  std::vector<float> y(6);
  test::TestContext t(1);
  const std::vector<float> slope = {0.5f};
  alibi_bias(t.context, View<const float, 3>(scores.data(), 1, 2, 3), slope, View<float, 3>(y.data(), 1, 2, 3));
  EXPECT_EQ(y, (std::vector<float>{0.5f, 1, 1.5f, 0, 0.5f, 1}));
}

TEST(Positions, ScoresAreTheProductOfTurnedRows) {
  constexpr int64_t kHeads = 2, kLength = 150, kD = 16;
  const std::vector<float> q = test::random_values<float>(kHeads * kLength * kD, 4),
                           k = test::random_values<float>(kHeads * kLength * kD, 5);
  const Angles a = precompute({}, kLength, kD / 2);
  const View<const float, 2> cos(a.cos.data(), kLength, kD / 2), sin(a.sin.data(), kLength, kD / 2);
  test::TestContext t(2);
  t.context.reserve(fused_rope_attention_mask_scratch(kHeads, kLength, kD));
  std::vector<float> scores(kHeads * kLength * kLength), turned_q(q.size()), turned_k(k.size());
  fused_rope_attention_mask(t.context, View<const float, 3>(q.data(), kHeads, kLength, kD),
                            View<const float, 3>(k.data(), kHeads, kLength, kD), cos, sin, 0.25,
                            View<float, 3>(scores.data(), kHeads, kLength, kLength));
  const auto turn = [&](const std::vector<float>& from, std::vector<float>& to) {  // heads as batch entries of one head
    rope_apply(t.context, View<const float, 4>(from.data(), kHeads, kLength, 1, kD), cos, sin, false,
               View<float, 4>(to.data(), kHeads, kLength, 1, kD));
  };
  turn(q, turned_q);
  turn(k, turned_k);
  for (int64_t h = 0; h < kHeads; ++h) {
    for (int64_t i = 0; i < kLength; ++i) {
      for (int64_t j = 0; j < kLength; ++j) {
        float dot = 0;
        for (int64_t e = 0; e < kD; ++e) {
          dot = std::fma(turned_q[static_cast<size_t>((h * kLength + i) * kD + e)],
                         turned_k[static_cast<size_t>((h * kLength + j) * kD + e)], dot);
        }
        const float want = j <= i ? 0.25f * dot : -std::numeric_limits<float>::infinity();
        ASSERT_EQ(scores[static_cast<size_t>((h * kLength + i) * kLength + j)], want) << h << " " << i << " " << j;
      }
    }
  }
}

TEST(Positions, WrongCallsAreErrors) {
  const auto precomputes = [](std::string_view name, std::string_view value) {
    KernelCall call;
    call.set_parameter(name, value);
    find_kernel("rope_precompute")->prepare(call);
  };
  EXPECT_NO_THROW(precomputes("dim", "0"));
  EXPECT_THROW(precomputes("dim", "3"), Error);
  EXPECT_THROW(precomputes("length", "-1"), Error);
  EXPECT_THROW(precomputes("length", "1000000000000000"), Error);
  EXPECT_THROW(precomputes("scaling", "yarn"), Error);
  EXPECT_THROW(precomputes("factor", "0"), Error);
  EXPECT_THROW(precomputes("base", "inf"), Error);
  KernelCall call;
  call.add_input("x", DType::kF32, {1, 4, 2, 6});
  call.add_input("cos", DType::kF32, {4, 2});
  call.add_input("sin", DType::kF32, {4, 2});
  EXPECT_THROW(find_kernel("rope_apply")->prepare(call), Error);  // 3 pairs
}

}  // namespace
}  // namespace graft
