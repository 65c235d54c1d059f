#include "graft/kernels/random_fill.h"

#include <fmt/format.h>

#include <algorithm>

#include "graft/kernels/test_support.h"

namespace graft {
namespace {

const RandomStream kFillStream(42, stream_hash("lora_A"));

TEST(RandomFill, SameBitsOnAnyThreadsAndSizes) {
  test::TestContext one(1), seven(7);
  std::vector<float> whole(100003), other(100003);
  for (const bool normal : {false, true}) {
    const auto fill = [&](Context& c, std::span<float> x) {
      normal ? fill_normal<float>(c, kFillStream, 0.02, x) : fill_uniform<float>(c, kFillStream, -0.5, 0.25, x);
    };
    fill(one.context, whole);
    fill(seven.context, other);
    EXPECT_EQ(whole, other);
    for (const size_t size : {0, 1, 2, 3, 5, 4097}) {
      std::vector<float> part(size + 1, 7.0f);
      fill(seven.context, std::span(part).first(size));
      EXPECT_TRUE(std::equal(part.begin(), part.end() - 1, whole.begin()));
      EXPECT_EQ(part.back(), 7.0f);
    }
  }
}

TEST(RandomFill, SameBitsFromEveryVariant) {
  for (const size_t size : {size_t{3}, size_t{37}, size_t{131}, size_t{200001}}) {
    const auto normal = [&](Context& c) {
      std::vector<float> x(size);
      fill_normal<float>(c, kFillStream, 0.17, x);
      return x;
    };
    test::expect_same_bits(normal, fmt::format("{} values", size));
  }
}

TEST(RandomFill, FollowsItsFormula) {
  test::TestContext t;
  std::vector<double> uniform(1000), normal(1000);
  fill_uniform<double>(t.context, kFillStream, -3, 5, uniform);
  fill_normal<double>(t.context, kFillStream, 2, normal);
  for (size_t i = 0; i < 1000; i += 2) {
    const double u = kFillStream.uniform(i), v = kFillStream.uniform(i + 1);
    EXPECT_EQ(uniform[i], -3 + 8 * u);
    EXPECT_EQ(uniform[i + 1], -3 + 8 * v);
    const double radius = 2 * std::sqrt(-2 * std::log(u + 0x1p-24));
    EXPECT_NEAR(normal[i], radius * std::cos(2 * M_PI * v), 1e-14);
    EXPECT_NEAR(normal[i + 1], radius * std::sin(2 * M_PI * v), 1e-14);
  }
}

TEST(RandomFill, MomentsAndSharesAreThoseOfTheDistributions) {
  test::TestContext t;
  constexpr size_t kCount = 400000;
  std::vector<float> x(kCount);
  const auto share = [&](float limit) {
    return static_cast<double>(std::count_if(x.begin(), x.end(), [=](float v) { return std::fabs(v) < limit; })) /
           kCount;
  };
  const auto mean = [&](int power) {
    double sum = 0;
    for (const float v : x) sum += std::pow(v, power);
    return sum / kCount;
  };
  // Bounds: five standard deviations of each estimate at this count.
  fill_normal<float>(t.context, kFillStream, 1, x);
  EXPECT_NEAR(mean(1), 0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(mean(2), 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(mean(4), 3, 5 * std::sqrt(96.0 / kCount));
  EXPECT_NEAR(share(1), 0.682689, 5 * std::sqrt(0.2166 / kCount));
  EXPECT_NEAR(share(3), 0.997300, 5 * std::sqrt(0.0027 / kCount));
  EXPECT_EQ(share(5.8f), 1);
  double neighbours = 0;
  for (size_t i = 0; i + 1 < kCount; ++i) neighbours += static_cast<double>(x[i]) * x[i + 1] / kCount;
  EXPECT_NEAR(neighbours, 0, 5 / std::sqrt(kCount));
  fill_uniform<float>(t.context, kFillStream, -1, 1, x);
  EXPECT_NEAR(mean(1), 0, 5 * std::sqrt(1.0 / 3 / kCount));
  EXPECT_NEAR(mean(2), 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kCount));
  EXPECT_NEAR(share(0.5f), 0.5, 5 * std::sqrt(0.25 / kCount));
  EXPECT_EQ(share(1.0000001f), 1);
}

// The bits that a seed stands for may never change: checkpoints and reports name seeds.
TEST(RandomFill, BitsOfASeedAreFixed) {
  test::TestContext t;
  std::vector<float> normal(8), uniform(8);
  fill_normal<float>(t.context, kFillStream, 1, normal);
  fill_uniform<float>(t.context, kFillStream, -1, 1, uniform);
  EXPECT_EQ(normal, (std::vector<float>{0x1.27e70ep-1f, 0x1.2c87b2p-4f, 0x1.783628p-3f, -0x1.8bb22ap-1f, 0x1.edd424p-2f,
                                        -0x1.b7fb5cp-1f, 0x1.15fff8p+0f, -0x1.68e3a2p-1f}));
  EXPECT_EQ(uniform, (std::vector<float>{0x1.602ce8p-1f, -0x1.eb6b7p-1f, 0x1.d5d628p-2f, 0x1.26081cp-1f, 0x1.d8979p-3f,
                                         0x1.53583p-1f, -0x1.1440cp-3f, 0x1.a22bb4p-1f}));
}

}  // namespace
}  // namespace graft
