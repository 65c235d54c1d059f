#include "graft/kernels/prng.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

// Word `index` of a stream, by the definition.
uint32_t word_of(uint64_t seed, uint64_t stream, uint64_t index) {
  const uint64_t b = index / 4;
  return philox4x32({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                    {static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32), static_cast<uint32_t>(stream),
                     static_cast<uint32_t>(stream >> 32)})[index % 4];
}

constexpr uint64_t kSeed = 0x123456789ABCDEFu, kStream = 0xFEDCBA9876543210u;

TEST(Prng, WordsAreThoseOfTheirIndex) {
  test::TestContext t(2);
  // Across the carry of the counter's low word, at every offset into a block, and past one task.
  for (const uint64_t first :
       {uint64_t{0}, uint64_t{1}, uint64_t{6}, uint64_t{7}, (uint64_t{1} << 34) - 70, UINT64_MAX - 40000}) {
    for (const size_t n : {0, 1, 2, 3, 5, 64, 133, 33001}) {
      std::vector<uint32_t> y(n + 1, 7);
      prng_philox(t.context, kSeed, kStream, first, std::span(y).first(n));
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], word_of(kSeed, kStream, first + i)) << first << " + " << i;
      EXPECT_EQ(y[n], 7u);
    }
  }
}

TEST(Prng, KnownAnswers) {
  test::TestContext t(1);
  const uint32_t ctr[] = {0, 0, 0, 0, ~0u, ~0u, ~0u, ~0u, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
  const uint32_t key[] = {0, 0, ~0u, ~0u, 0xa4093822, 0x299f31d0};
  const std::vector<uint32_t> want = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8, 0x408f276d, 0x41c83b0e,
                                      0xa20bc7c6, 0x6d5451fd, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  std::vector<uint32_t> y(12);
  prng_philox(t.context, View<const uint32_t, 2>(ctr, 3, 4), View<const uint32_t, 2>(key, 3, 2),
              View<uint32_t, 2>(y.data(), 3, 4));
  EXPECT_EQ(y, want);
}

TEST(Prng, RangesOfAStreamAreTheSameDraws) {
  test::TestContext t(2);
  constexpr size_t kSize = 1000;
  std::vector<float> u(kSize), z(kSize), part(kSize);
  std::vector<uint8_t> mask(kSize);
  prng_uniform_f32(t.context, kSeed, kStream, 0, u);
  prng_normal_f32(t.context, kSeed, kStream, 0, z);
  prng_dropout_mask(t.context, kSeed, kStream, 0, 0.3, mask);
  for (size_t i = 0; i < kSize; ++i) {
    EXPECT_EQ(u[i], static_cast<float>(word_of(kSeed, kStream, i) >> 8) * 0x1p-24f);
    EXPECT_EQ(mask[i], u[i] < 0.3f ? 1 : 0);
    const size_t j = i / 2 * 2;
    const double radius = std::sqrt(-2 * std::log((word_of(kSeed, kStream, j) >> 8) * 0x1p-24 + 0x1p-24));
    const double angle = 2 * M_PI * ((word_of(kSeed, kStream, j + 1) >> 8) * 0x1p-24);
    const double want = radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
    EXPECT_NEAR(z[i], want, 2e-6 * std::fabs(want) + 1e-7);  // log, sqrt and sine of one ulp each
  }
  for (const uint64_t first : {2, 4, 14, 130}) {
    const size_t n = 333;
    prng_normal_f32(t.context, kSeed, kStream, first, std::span(part).first(n));
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(part[i], z[first + i]);
    prng_uniform_f32(t.context, kSeed, kStream, first + 1, std::span(part).first(n));
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(part[i], u[first + 1 + i]);
  }
}

TEST(Prng, StreamingStoresWriteEveryDraw) {
  constexpr size_t kSize = (size_t{4} << 20) + 77;
  test::TestContext t(3);
  std::vector<float> y(kSize + 1), unaligned(kSize + 1);
  prng_uniform_f32(t.context, 1, 2, 0, std::span(y).first(kSize));
  prng_uniform_f32(t.context, 1, 2, 1, std::span(unaligned).subspan(1));
  EXPECT_EQ(y[kSize], 0);
  for (size_t i = 1; i < kSize; ++i) ASSERT_EQ(y[i], unaligned[i]) << i;
  ASSERT_EQ(y[kSize - 1], static_cast<float>(word_of(1, 2, kSize - 1) >> 8) * 0x1p-24f);
}

TEST(Prng, EdgesOfTheMask) {
  test::TestContext t(1);
  std::vector<uint8_t> mask(100);
  const auto kept = [&](double keep) {
    prng_dropout_mask(t.context, 3, 4, 5, keep, mask);
    return std::count(mask.begin(), mask.end(), 1);
  };
  EXPECT_EQ(kept(0), 0);
  EXPECT_EQ(kept(-1), 0);
  EXPECT_EQ(kept(NAN), 0);
  EXPECT_EQ(kept(1), 100);
  EXPECT_EQ(kept(2), 100);
}

TEST(Prng, MomentsOfNormals) {
  test::TestContext t(2);
  std::vector<float> z(1 << 20);
  prng_normal_f32(t.context, 42, 0, 0, z);
  double sum = 0, squares = 0, fourth = 0, neighbours = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    const double v = z[i];
    sum += v;
    squares += v * v;
    fourth += v * v * v * v;
    neighbours += v * static_cast<double>(z[i ^ 1]);
  }
  const auto n = static_cast<double>(z.size());
  // Five standard errors of each: 1, sqrt 2, sqrt 96 and sqrt 2 (pairs count twice) over sqrt n.
  EXPECT_NEAR(sum / n, 0, 5e-3);
  EXPECT_NEAR(squares / n, 1, 7e-3);
  EXPECT_NEAR(fourth / n, 3, 5e-2);
  EXPECT_NEAR(neighbours / n, 0, 7e-3);
}

TEST(Prng, WrongCallsAreErrors) {
  const auto refused = [](std::string_view name, std::string_view parameter, std::string_view text) {
    KernelCall call;
    const KernelInfo& kernel = *find_kernel(name);
    kernel.example(call, 10, 1);
    call.set_parameter(parameter, text);
    EXPECT_THROW(kernel.prepare(call), Error) << name << " " << parameter << " " << text;
  };
  refused("prng_uniform_f32", "n", "-1");
  refused("prng_uniform_f32", "n", "1000000000000000");
  refused("prng_uniform_f32", "first", "18446744073709551610");
  refused("prng_normal_f32", "first", "3");
  refused("prng_dropout_mask", "keep_prob", "1.5");
  refused("prng_dropout_mask", "keep_prob", "nan");
  KernelCall call;
  call.add_input("ctr", DType::kU32, {3, 4});
  call.add_input("key", DType::kU32, {2, 2});
  EXPECT_THROW(find_kernel("prng_philox")->prepare(call), Error);
}

}  // namespace
}  // namespace graft
