#include "graft/kernels/layout.h"

#include <numeric>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using Turn = void (*)(Context&, View<const float, 2>, View<float, 2>) noexcept;
constexpr Turn kTurns[] = {transpose_2d, repack_aos_to_soa, repack_soa_to_aos};

// Every element arrives, and nothing beside the output is written: rows have gaps that must keep their value.
void expect_turned(Turn turn, int64_t rows, int64_t columns, int64_t x_gap, int64_t y_gap, int threads) {
  std::vector<float> values(static_cast<size_t>(rows * columns));
  std::iota(values.begin(), values.end(), 1.0f);
  const test::Matrix<float> x(rows, columns, x_gap, values);
  test::Matrix<float> y(columns, rows, y_gap);
  std::fill(y.values.begin(), y.values.end(), -1.0f);
  test::TestContext t(threads);
  turn(t.context, x.in(), y.view);
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows + y_gap; ++r) {
      const float got = y.values[static_cast<size_t>(c * (rows + y_gap) + r)];
      ASSERT_EQ(got, r < rows ? x.view(r, c) : -1.0f) << rows << " x " << columns << " at " << c << ", " << r;
    }
  }
}

TEST(Layout, EveryShapeOfATile) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const Turn turn : kTurns) {
      for (int64_t rows = 0; rows <= 18; ++rows) {
        for (int64_t columns = 0; columns <= 18; ++columns) expect_turned(turn, rows, columns, 0, 0, 1);
      }
      expect_turned(turn, 33, 65, 3, 5, 1);
    }
  }
  set_cpu_level(top);
}

TEST(Layout, TasksOfEveryKindOfShape) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const Turn turn : kTurns) {
      expect_turned(turn, 129, 2063, 1, 0, 3);
      expect_turned(turn, 2063, 129, 0, 1, 3);
      expect_turned(turn, 30011, 3, 0, 0, 3);
      expect_turned(turn, 3, 30011, 0, 0, 3);
      expect_turned(turn, 30011, 4, 0, 0, 2);
      expect_turned(turn, 4, 30011, 0, 0, 2);
      expect_turned(turn, 20011, 2, 0, 0, 2);
      expect_turned(turn, 2, 20011, 0, 0, 2);
      expect_turned(turn, 1, 40001, 0, 0, 2);
      expect_turned(turn, 40001, 1, 0, 0, 2);
    }
  }
  set_cpu_level(top);
}

// Beyond 4 Mi elements outputs are stored past the cache: lines that are whole, that are not, and those of interleaved fields.
TEST(Layout, LargeOutputs) {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{2048, 2112}, {2051, 2100}, {4, 1050000}, {3, 1400003}}) {
    KernelCall call;
    KernelTensor& x = call.add_input("x", DType::kF32, {rows, columns});
    std::iota(x.data.as<float>().begin(), x.data.as<float>().end(), 1.0f);
    const auto in = call.in_view<float, 2>("x");
    KernelTensor back(DType::kF32, {rows, columns}), turned(DType::kF32, {columns, rows});
    const View<float, 2> y(turned.data.as<float>().data(), columns, rows),
        z(back.data.as<float>().data(), rows, columns);
    test::TestContext t(2);
    for (const Turn turn : kTurns) {
      std::fill_n(turned.data.as<float>().begin(), turned.size(), 0.0f);
      turn(t.context, in, y);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; c += 1 + c % 7) ASSERT_EQ(y(c, r), in(r, c)) << r << ", " << c;
      }
      std::fill_n(back.data.as<float>().begin(), back.size(), 0.0f);
      turn(t.context, y, z);
      EXPECT_TRUE(std::equal(in.data(), in.data() + rows * columns, z.data())) << rows << " x " << columns;
    }
  }
}

// NaN payloads and signs of zero pass as they are.
TEST(Layout, BitsAreCopied) {
  const std::vector<uint32_t> bits = {0x7F800001u, 0xFFC12345u, 0x80000000u, 1u, 0x007FFFFFu, 0xFF800000u};
  std::vector<float> x(6), y(6);
  std::memcpy(x.data(), bits.data(), 24);
  test::TestContext t(1);
  transpose_2d(t.context, View<const float, 2>(x.data(), 2, 3), View<float, 2>(y.data(), 3, 2));
  const size_t from[] = {0, 3, 1, 4, 2, 5};
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(y[i]), bits[from[i]]);
}

TEST(Layout, WrongShapesAreErrors) {
  for (const auto& [name, input] :
       {std::pair{"transpose_2d", "x"}, {"repack_aos_to_soa", "aos"}, {"repack_soa_to_aos", "soa"}}) {
    const KernelInfo& kernel = *find_kernel(name);
    KernelCall none, flat, integer;
    EXPECT_THROW(kernel.prepare(none), Error);
    flat.add_input(input, DType::kF32, {6});
    EXPECT_THROW(kernel.prepare(flat), Error);
    integer.add_input(input, DType::kI32, {2, 3});
    EXPECT_THROW(kernel.prepare(integer), Error);
  }
}

}  // namespace
}  // namespace graft
