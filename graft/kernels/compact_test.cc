#include "graft/kernels/compact.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

void expect_same(std::span<const float> got, const std::vector<float>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  if (want.empty()) return;
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size_bytes()), 0) << what;
}

// What is behind the room given to the kernel must not change, nor what other tasks wrote.
void check_compaction(const std::vector<float>& x, double threshold, std::span<const uint8_t> mask, int threads) {
  test::TestContext t(threads);
  t.context.reserve(compact_scratch(static_cast<int64_t>(x.size())));
  std::vector<float> above, marked;
  for (size_t i = 0; i < x.size(); ++i) {
    if (static_cast<double>(x[i]) > threshold) above.push_back(x[i]);
    if (mask[i] != 0) marked.push_back(x[i]);
  }
  const std::string what = fmt::format("{} elements above {}, {} threads", x.size(), threshold, threads);
  for (const size_t offset : {0, 1, 5}) {  // of y from a cache line
    std::vector<float> y(x.size() + offset + 1, -7.0f);
    const std::span<float> room = std::span(y).subspan(offset, x.size());
    expect_same(room.first(compact_if(t.context, x, threshold, room)), above, what);
    EXPECT_EQ(y.back(), -7.0f);
    expect_same(room.first(compact_mask(t.context, x, mask, room)), marked, what);
    expect_same(room.first(fused_scan_compact(t.context, x, threshold, room)), above, what);
    EXPECT_EQ(y.back(), -7.0f);
    for (size_t i = 0; i < offset; ++i) EXPECT_EQ(y[i], -7.0f);
  }
}

TEST(Compact, KeepsWhatItShouldInOrder) {
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const int64_t n : {0, 1, 15, 16, 17, 1009, 32769, 100003}) {
      const std::vector<float> x = test::hostile_values(n, static_cast<uint64_t>(n));
      const RandomStream stream(3, 1);
      std::vector<uint8_t> mask(x.size());
      for (const uint32_t one_in : {1u, 2u, 300u}) {  // all, half, few
        for (size_t i = 0; i < mask.size(); ++i) {
          mask[i] = stream.word(i) % one_in == 0 ? static_cast<uint8_t>(1 + stream.word(i) % 255) : 0;
        }
        for (const double threshold : {-1e300, 0.0, 2.9, 1e35}) {
          for (const int threads : {1, 3}) check_compaction(x, threshold, mask, threads);
        }
      }
      std::fill(mask.begin(), mask.end(), uint8_t{0});
      check_compaction(x, INFINITY, mask, 2);
      check_compaction(x, NAN, mask, 2);
    }
  }
  set_cpu_level(top);
}

// Beyond 4 Mi elements y is stored past the cache, a stage at a time.
TEST(Compact, LargeOutputs) {
  const std::vector<float> x = test::random_values<float>((int64_t{4} << 20) + 33, 1);
  const RandomStream stream(3, 1);
  std::vector<uint8_t> mask(x.size());
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i < 100000 || stream.word(i) % 5 != 0 ? 1 : 0;
  for (const int threads : {1, 2}) check_compaction(x, 0.3, mask, threads);
}

// The threshold is a real number: 0.1 lies below the float 0.1f, and 1e300 above every finite float.
TEST(Compact, ThresholdIsNotRounded) {
  test::TestContext t(1);
  std::vector<float> y(3);
  EXPECT_EQ(compact_if(t.context, std::vector<float>{0.1f, std::nextafter(0.1f, 0.0f), 0.2f}, 0.1, y), 2u);
  EXPECT_EQ(compact_if(t.context, std::vector<float>{3e38f, INFINITY, NAN}, 1e300, y), 1u);
  EXPECT_EQ(compact_if(t.context, std::vector<float>{-3e38f, -INFINITY, 0.0f}, -1e300, y), 2u);
  EXPECT_EQ(compact_if(t.context, std::vector<float>{0x1p-149f, 0.0f, -0.0f}, 1e-320, y), 1u);
  EXPECT_EQ(compact_if(t.context, std::vector<float>{0x1p-149f, 0.0f, -0.0f}, -1e-320, y), 3u);
}

TEST(Compact, WrongInputsAreErrors) {
  for (const char* name : {"compact_if", "compact_mask", "fused_scan_compact"}) {
    KernelCall none, integer;
    EXPECT_THROW(find_kernel(name)->prepare(none), Error);
    integer.add_input("x", DType::kI32, {6});
    integer.add_input("mask", DType::kU8, {6});
    EXPECT_THROW(find_kernel(name)->prepare(integer), Error);
  }
  KernelCall shorter, wide, word;
  shorter.add_input("x", DType::kF32, {6});
  shorter.add_input("mask", DType::kU8, {5});
  EXPECT_THROW(find_kernel("compact_mask")->prepare(shorter), Error);
  wide.add_input("x", DType::kF32, {6});
  wide.add_input("mask", DType::kF32, {6});
  EXPECT_THROW(find_kernel("compact_mask")->prepare(wide), Error);
  word.add_input("x", DType::kF32, {6});
  word.set_parameter("threshold", "high");
  EXPECT_THROW(find_kernel("compact_if")->prepare(word), Error);
}

// A call may run again, and the count is what y has.
TEST(Compact, RunsAgain) {
  KernelCall call;
  const KernelInfo& kernel = *find_kernel("compact_if");
  kernel.example(call, 1000, 1);
  test::TestContext t(2);
  t.context.reserve(kernel.prepare(call));
  kernel.run(t.context, call);
  const uint32_t count = call.out<uint32_t>("count")[0];
  kernel.run(t.context, call);
  EXPECT_EQ(call.out<uint32_t>("count")[0], count);
  EXPECT_EQ(call.out<float>("y").size(), count);
  EXPECT_GT(count, 400u);
  EXPECT_LT(count, 600u);
}

}  // namespace
}  // namespace graft
