#include "graft/kernels/sort.h"

#include <algorithm>
#include <numeric>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

std::vector<uint32_t> words(int64_t n, uint32_t mask) {
  const RandomStream stream(static_cast<uint64_t>(n), 1);
  std::vector<uint32_t> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = stream.word(i) & mask;
  return x;
}

// Keys with all digits in use, with one, with none, and with two apart.
TEST(Sort, RadixIsStable) {
  for (const int64_t n : {0, 1, 2, 255, 1000, 40009, 100003}) {
    for (const uint32_t mask : {0xFFFFFFFFu, 0xFu, 0u, 0xFF00FF00u, 0x80000000u}) {
      const std::vector<uint32_t> keys = words(n, mask);
      std::vector<uint32_t> values(keys.size());
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint32_t>(i * 7919);
      std::vector<size_t> order(keys.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
      for (const int threads : {1, 3}) {
        test::TestContext t(threads);
        t.context.reserve(sort_scratch(n));
        std::vector<uint32_t> sorted(keys.size()), sorted_keys(keys.size()), sorted_values(keys.size());
        sort_radix(t.context, keys, sorted);
        sort_radix(t.context, keys, values, sorted_keys, sorted_values);
        EXPECT_EQ(sorted, sorted_keys);
        for (size_t i = 0; i < order.size(); ++i) {
          ASSERT_EQ(sorted_keys[i], keys[order[i]]) << i << " of " << n;
          ASSERT_EQ(sorted_values[i], values[order[i]]) << i << " of " << n;
        }
      }
    }
  }
}

std::vector<float> floats(int64_t n, bool ties) {
  std::vector<float> x = test::hostile_values(n, 3);
  if (ties) {
    for (float& v : x) v = v != v ? v : std::copysign(std::floor(std::fabs(v) < 4 ? v : 1.0f), v);
  }
  return x;
}
// Bits, with all NaN alike.
uint32_t bits_of(float x) { return x != x ? 0x7FC00000u : std::bit_cast<uint32_t>(x); }

TEST(Sort, FloatsInTotalOrder) {
  for (const int64_t n : {0, 1, 8, 65, 1024, 50021}) {
    for (const bool ties : {false, true}) {
      std::vector<float> x = floats(n, ties);
      for (size_t i = 0; i < x.size(); i += 11) x[i] = -std::numeric_limits<float>::quiet_NaN();
      std::vector<float> want = x;
      std::stable_sort(want.begin(), want.end(), [](float a, float b) {
        if (a != a || b != b) return a == a;
        return a < b || (a == b && std::signbit(a) && !std::signbit(b));
      });
      for (const int threads : {1, 2}) {
        test::TestContext t(threads);
        t.context.reserve(sort_scratch(n));
        std::vector<float> y(x.size());
        sort_bitonic(t.context, x, y);
        for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(bits_of(y[i]), bits_of(want[i])) << i << " of " << n;
      }
    }
  }
}

// Zeros of both signs and NaN have long runs, whose values come in no order.
TEST(Sort, PairsByKeyThenValue) {
  for (const int64_t n : {0, 1, 8, 65, 1024, 50021}) {
    for (const bool ties : {false, true}) {
      const std::vector<float> keys = floats(n, ties);
      const std::vector<uint32_t> values = words(n, ties ? 0xFFFFFFFFu : 0xFu);
      std::vector<size_t> order(keys.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        const float u = keys[a], v = keys[b];
        const bool same = u == v || (u != u && v != v);
        if (same) return values[a] < values[b];
        return v != v || u < v;
      });
      test::TestContext t(2);
      t.context.reserve(sort_scratch(n));
      std::vector<float> sorted(keys.size());
      std::vector<uint32_t> with(keys.size());
      sort_bitonic_kv(t.context, keys, values, sorted, with);
      size_t negative = 0, negative_in = 0;
      for (size_t i = 0; i < order.size(); ++i) {
        const float want = keys[order[i]];
        ASSERT_TRUE(sorted[i] == want || (sorted[i] != sorted[i] && want != want)) << i << " of " << n;
        ASSERT_EQ(with[i], values[order[i]]) << i << " of " << n;
        negative += sorted[i] == 0 && std::signbit(sorted[i]) ? 1 : 0;
        negative_in += want == 0 && std::signbit(want) ? 1 : 0;
      }
      EXPECT_EQ(negative, negative_in);  // zeros keep their signs
    }
  }
}

TEST(Sort, WrongInputsAreErrors) {
  for (const char* name : {"sort_radix", "sort_bitonic", "sort_bitonic_kv"}) {
    const KernelInfo& kernel = *find_kernel(name);
    KernelCall none, type, shape;
    EXPECT_THROW(kernel.prepare(none), Error);
    for (const char* input : {"keys", "x", "values"}) type.add_input(input, DType::kF16, {4});
    EXPECT_THROW(kernel.prepare(type), Error);
    shape.add_input("x", DType::kF32, {2, 2});
    shape.add_input("keys", name == std::string("sort_radix") ? DType::kU32 : DType::kF32, {4});
    shape.add_input("values", DType::kU32, {3});
    EXPECT_THROW(kernel.prepare(shape), Error);
  }
}

}  // namespace
}  // namespace graft
