#include "graft/kernels/weight.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "graft/kernels/gemm_test_util.h"

namespace graft {
namespace {

using test::GemmMatrix;
using test::rounded;

TEST(Weight, RoundTripFromEveryFloatType) {
  ThreadPool pool(3);
  Context context(pool);
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1}, {33, 7}, {64, 64}, {65, 130}, {200, 63}};
  for (const auto& [out, in] : shapes) {
    test::Uniform random(static_cast<uint64_t>(out * 1000 + in));
    const auto count = static_cast<size_t>(out * in);
    std::vector<float> f32(count);
    std::vector<double> f64(count);
    std::vector<uint16_t> b16(count), h16(count);
    for (size_t i = 0; i < count; ++i) {
      f32[i] = random.next();
      f64[i] = f32[i];
      b16[i] = to_bf16(f32[i]).bits;
      h16[i] = to_f16(f32[i]).bits;
    }
    const std::pair<DType, const void*> sources[] = {
        {DType::kF32, f32.data()}, {DType::kF64, f64.data()}, {DType::kBF16, b16.data()}, {DType::kF16, h16.data()}};
    for (const auto& [source_type, source] : sources) {
      for (DType type : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
        Weight w(type, out, in);
        ASSERT_EQ(w.bytes(), Weight::packed_bytes(type, out, in));
        w.pack_rows(context, 0, out, source_type, source);
        std::vector<float> back(count);
        w.unpack_rows(context, 0, out, back.data());
        for (size_t i = 0; i < count; ++i) ASSERT_EQ(back[i], rounded(type, rounded(source_type, f32[i])));
      }
    }
  }
}

TEST(Weight, PacksInPiecesLikeAtOnce) {
  ThreadPool pool(2);
  Context context(pool);
  const int64_t out = 200, in = 37;
  std::vector<float> rows(static_cast<size_t>(out * in));
  test::Uniform random(5);
  for (float& x : rows) x = random.next();
  for (DType type : {DType::kF32, DType::kBF16}) {
    Weight whole(type, out, in), pieces(type, out, in);
    whole.pack_rows(context, 0, out, DType::kF32, rows.data());
    int64_t first = 0;
    for (int64_t n : {64, 1, 30, 100, 5}) {  // pieces may begin inside a panel when they are packed one after the other
      pieces.pack_rows(context, first, n, DType::kF32, rows.data() + first * in);
      first += n;
    }
    ASSERT_EQ(first, out);
    EXPECT_EQ(std::memcmp(whole.data(), pieces.data(), whole.bytes()), 0);
    std::vector<float> some(static_cast<size_t>(3 * in));
    whole.unpack_rows(context, 63, 3, some.data());
    for (size_t i = 0; i < some.size(); ++i) ASSERT_EQ(some[i], rounded(type, rows[static_cast<size_t>(63 * in) + i]));
  }
}

TEST(Weight, SameBytesOnEveryLevel) {
  const test::LevelGuard guard;
  ThreadPool pool(2);
  Context context(pool);
  test::Uniform random(6);
  const GemmMatrix<float> rows = random.matrix<float>(75, 77);
  std::vector<float> values = rows.values;
  values[3] = NAN;
  values[4] = std::bit_cast<float>(0x7F800001u);  // a NaN whose payload is below what bf16 keeps
  values[5] = INFINITY;
  values[6] = 0x1p-149f;
  values[7] = std::numeric_limits<float>::max();  // rounds to infinity
  for (DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    set_cpu_level(CpuLevel::kScalar);
    Weight want(type, 75, 77);
    want.pack_rows(context, 0, 75, DType::kF32, values.data());
    for (CpuLevel level : cpu_levels_available()) {
      set_cpu_level(level);
      Weight w(type, 75, 77);
      w.pack_rows(context, 0, 75, DType::kF32, values.data());
      EXPECT_EQ(std::memcmp(w.data(), want.data(), want.bytes()), 0) << cpu_level_name(level);
    }
  }
}

TEST(Weight, PanelsLieAsStated) {
  ThreadPool pool(1);
  Context context(pool);
  std::vector<float> rows(70 * 5);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 200);  // exact in bf16
  Weight f(DType::kF32, 70, 5), b(DType::kBF16, 70, 5);
  f.pack_rows(context, 0, 70, DType::kF32, rows.data());
  b.pack_rows(context, 0, 70, DType::kF32, rows.data());
  const auto* panels = static_cast<const float*>(f.data());
  const auto* pairs = static_cast<const uint16_t*>(b.data());
  for (size_t o = 0; o < 70; ++o) {
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(panels[(o / 32 * 5 + k) * 32 + o % 32], rows[o * 5 + k]);
      EXPECT_EQ(pairs[((o / 64 * 3 + k / 2) * 64 + o % 64) * 2 + k % 2], to_bf16(rows[o * 5 + k]).bits);
    }
    EXPECT_EQ(pairs[((o / 64 * 3 + 2) * 64 + o % 64) * 2 + 1], 0);  // the odd last column
  }
}

TEST(Weight, EightBitFloatsWidenExactly) {
  ThreadPool pool(1);
  Context context(pool);
  const auto value = [&](DType type, uint8_t bits) {
    Weight w(DType::kF32, 1, 1);
    w.pack_rows(context, 0, 1, type, &bits);
    float out = 0;
    w.unpack_rows(context, 0, 1, &out);
    return out;
  };
  EXPECT_EQ(value(DType::kF8E4M3, 0x7E), 448.0f);
  EXPECT_EQ(value(DType::kF8E4M3, 0x01), 0x1p-9f);
  EXPECT_EQ(value(DType::kF8E4M3, 0xB8), -1.0f);
  EXPECT_TRUE(std::isnan(value(DType::kF8E4M3, 0xFF)));
  EXPECT_EQ(value(DType::kF8E5M2, 0x7B), 57344.0f);
  EXPECT_EQ(value(DType::kF8E5M2, 0x01), 0x1p-16f);
  EXPECT_EQ(value(DType::kF8E5M2, 0xFC), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(value(DType::kF8E5M2, 0x7D)));
  EXPECT_EQ(value(DType::kF8E4M3FNUZ, 0x7F), 240.0f);
  EXPECT_TRUE(std::isnan(value(DType::kF8E4M3FNUZ, 0x80)));
  EXPECT_EQ(value(DType::kF8E5M2FNUZ, 0x7F), 57344.0f);
  EXPECT_EQ(value(DType::kF8E8M0, 127), 1.0f);
  EXPECT_EQ(value(DType::kF8E8M0, 0), 0x1p-127f);
}

TEST(Weight, RoundsFloat64Once) {
  ThreadPool pool(1);
  Context context(pool);
  // Just above a tie of bf16 by less than f32 resolves: rounding twice would fall to even, that is down.
  const double source[2] = {1.0 + 0x1p-8 + 0x1p-40, -(1.0 + 0x1p-8 - 0x1p-40)};
  Weight w(DType::kBF16, 1, 2);
  w.pack_rows(context, 0, 1, DType::kF64, source);
  float back[2];
  w.unpack_rows(context, 0, 1, back);
  EXPECT_EQ(back[0], 1.0f + 0x1p-7f);
  EXPECT_EQ(back[1], -1.0f);
}

TEST(Weight, RefusesWhatItCannotHold) {
  ThreadPool pool(1);
  Context context(pool);
  EXPECT_THROW(Weight(DType::kI8, 2, 2), Error);
  Weight w(DType::kF32, 4, 4);
  const float rows[16] = {};
  EXPECT_THROW(w.pack_rows(context, 0, 1, DType::kI32, rows), Error);
  EXPECT_THROW(w.pack_rows(context, 0, 1, DType::kF4, rows), Error);
  EXPECT_THROW(w.pack_rows(context, 2, 3, DType::kF32, rows), Error);
}

}  // namespace
}  // namespace graft
