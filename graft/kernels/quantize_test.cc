#include "graft/kernels/quantize.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scale;
};
Quantized quantize(Context& context, const std::vector<f16>& x, int64_t rows, int64_t columns) {
  Quantized y = {std::vector<int8_t>(x.size()), std::vector<float>(static_cast<size_t>(rows))};
  context.reserve(quantize_scratch(rows, columns));
  quantize_f16_to_i8(context, View<const f16, 2>(x.data(), rows, columns), View<int8_t, 2>(y.q.data(), rows, columns),
                     y.scale);
  return y;
}
std::vector<f16> halves(const std::vector<float>& x) {
  std::vector<f16> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = to_f16(x[i]);
  return y;
}

// Every half, as every row's largest or beside one: the quotient is rounded as the real number is, but for quotients that f32 cannot
// tell from a tie.
TEST(Quantize, RoundsTheTrueQuotient) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    test::TestContext t(1);
    for (const float largest : {1.0f, 127.0f, 65504.0f, 0x1p-24f, 3.7f, 0x1.8p-15f, 381.0f}) {
      std::vector<float> values = {to_float(to_f16(largest))};
      for (uint32_t bits = 0; bits < 0x10000; bits += 3) {
        const float v = to_float(f16{static_cast<uint16_t>(bits)});
        if (std::fabs(v) <= values[0]) values.push_back(v);
      }
      const Quantized y = quantize(t.context, halves(values), 1, static_cast<int64_t>(values.size()));
      EXPECT_EQ(y.scale[0], values[0] / 127.0f);
      for (size_t i = 0; i < values.size(); ++i) {
        const double quotient = static_cast<double>(values[i]) / static_cast<double>(y.scale[0]);
        const double rounded = std::nearbyint(static_cast<double>(static_cast<float>(quotient)));
        ASSERT_EQ(y.q[i], static_cast<int>(rounded)) << values[i] << " / " << y.scale[0];
        ASSERT_GE(y.q[i], -127);
      }
    }
  }
  set_cpu_level(top);
}

TEST(Quantize, RowsOfZerosAndOfWhatIsNotFinite) {
  test::TestContext t(2);
  const Quantized y = quantize(t.context, halves({0, -0.0f, 0, 1, NAN, 2, -INFINITY, 1, 0, -4, 2, 1}), 4, 3);
  EXPECT_EQ(y.q, (std::vector<int8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, -127, 64, 32}));  // 63.5 and 31.75
  EXPECT_EQ(y.scale[0], 1.0f);
  EXPECT_TRUE(std::isnan(y.scale[1]));
  EXPECT_EQ(y.scale[2], INFINITY);
  EXPECT_EQ(y.scale[3], 4.0f / 127.0f);
}

TEST(Quantize, LongAndShortRowsAndBack) {
  for (const auto& shape : {std::pair<int64_t, int64_t>{1, 200003}, {2, 70001}, {501, 333}, {3, 0}, {0, 3}}) {
    const int64_t rows = shape.first, columns = shape.second;
    const std::vector<float> values = test::random_values<float>(rows * columns, 4, 5);
    const std::vector<f16> x = halves(values);
    test::expect_same_bits(
        [&](Context& context) {
          const Quantized y = quantize(context, x, rows, columns);
          std::vector<float> all(y.scale);
          test::append(all, y.q);
          std::vector<f16> back(x.size());
          dequantize_i8_to_f16(context, View<const int8_t, 2>(y.q.data(), rows, columns), y.scale,
                               View<f16, 2>(back.data(), rows, columns));
          for (size_t i = 0; i < back.size(); ++i) {
            const float scale = y.scale[i / static_cast<size_t>(columns)];
            EXPECT_EQ(back[i].bits, to_f16(static_cast<float>(y.q[i]) * scale).bits);
            // Half a step, and the half's own rounding of at most 127 steps.
            EXPECT_NEAR(to_float(back[i]), to_float(x[i]), 0.5f * scale + 127 * scale * 0x1p-11f);
          }
          return all;
        },
        "quantize");
  }
}

// All patterns of the upper 16 bits, with the lower ones just below, at and above what decides a tie.
TEST(Quantize, HalvesOfEveryFloatOfInterest) {
  std::vector<float> x;
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0x0u, 0x0FFFu, 0x1000u, 0x1001u, 0xFFFFu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const int threads : {1, 3}) {
      test::TestContext t(threads);
      std::vector<f16> y(x.size());
      quantize_f32_to_f16(t.context, x, y);
      for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, to_f16(x[i]).bits) << x[i];
    }
  }
  set_cpu_level(top);
  EXPECT_EQ(to_f16(65519.99f).bits, 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7C00);
}

// Outputs that are stored past the cache, at an address that is not a vector's.
TEST(Quantize, LargeOutputs) {
  constexpr int64_t kSize = (int64_t{8} << 20) + 41;
  const std::vector<float> x = test::random_values<float>(kSize, 1);
  std::vector<f16> y(x.size() + 3), z(x.size());
  std::vector<int8_t> q(x.size());
  std::vector<float> scale(1);
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    test::TestContext t(2);
    t.context.reserve(quantize_scratch(1, kSize));
    quantize_f32_to_f16(t.context, x, std::span(y).subspan(3));
    quantize_f16_to_i8(t.context, View<const f16, 2>(y.data() + 3, 1, kSize), View<int8_t, 2>(q.data(), 1, kSize),
                       scale);
    dequantize_i8_to_f16(t.context, View<const int8_t, 2>(q.data(), 1, kSize), scale, View<f16, 2>(z.data(), 1, kSize));
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i + 3].bits, to_f16(x[i]).bits) << i;
      ASSERT_EQ(q[i], static_cast<int>(std::nearbyint(to_float(y[i + 3]) / scale[0]))) << i;
      ASSERT_EQ(z[i].bits, to_f16(static_cast<float>(q[i]) * scale[0]).bits) << i;
    }
  }
  set_cpu_level(top);
}

TEST(Quantize, WrongShapesAreErrors) {
  KernelCall flat, scales, real;
  flat.add_input("x", DType::kF16, {6});
  EXPECT_THROW(find_kernel("quantize_f16_to_i8")->prepare(flat), Error);
  EXPECT_THROW(find_kernel("quantize_f32_to_f16")->prepare(flat), Error);
  scales.add_input("q", DType::kI8, {2, 3});
  scales.add_input("scale", DType::kF32, {3});
  EXPECT_THROW(find_kernel("dequantize_i8_to_f16")->prepare(scales), Error);
  real.add_input("q", DType::kI8, {2, 3});
  real.add_input("scale", DType::kF16, {2});
  EXPECT_THROW(find_kernel("dequantize_i8_to_f16")->prepare(real), Error);
}

}  // namespace
}  // namespace graft
