#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <filesystem>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/cpu.h"
#include "graft/base/dtype.h"
#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/float16.h"
#include "graft/base/json.h"
#include "graft/base/random.h"
#include "graft/base/thread_pool.h"
#include "graft/base/view.h"

namespace graft {
namespace {

// The published known answers of Random123 for philox4x32-10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0}, {0, 0, 0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Float16, EveryHalfRoundTripsAndRoundsToEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const f16 h{static_cast<uint16_t>(bits)};
    const float x = to_float(h);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(x))));
    } else {
      ASSERT_EQ(to_f16(x).bits, bits);
      // Half way to the next half goes to the even one.
      if ((bits & 0x7FFFu) < 0x7BFFu) {
        const float next = to_float(f16{static_cast<uint16_t>(bits + 1)});
        ASSERT_EQ(to_f16((x + next) / 2).bits, (bits & 1u) != 0 ? bits + 1 : bits);
      }
    }
    const bf16 b{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_float(b))) {
      ASSERT_EQ(to_bf16(to_float(b)).bits, bits);
    }
  }
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7BFF);
  EXPECT_EQ(to_f16(1e-10f).bits, 0);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(NAN))));
}

TEST(ThreadPool, EveryTaskOnceOnAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (int64_t tasks : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<size_t>(tasks));
      for (int repeat = 0; repeat < 50; ++repeat) {
        pool.parallel(tasks, [&](int64_t task, int worker) {
          ASSERT_LT(worker, threads);
          count[static_cast<size_t>(task)].fetch_add(1);
        });
      }
      for (const auto& c : count) EXPECT_EQ(c.load(), 50);
    }
  }
}

TEST(ThreadPool, NestedRegionsRunInPlace) {
  ThreadPool pool(3);
  std::atomic<int> sum = 0;
  pool.parallel(4, [&](int64_t, int) { pool.parallel(5, [&](int64_t task, int) { sum += static_cast<int>(task); }); });
  EXPECT_EQ(sum.load(), 40);
}

TEST(Json, RefusesWhatHostileFilesHold) {
  EXPECT_EQ(parse_json("{\"b\":1,\"a\":[2,{}]}", "f").dump(), "{\"b\":1,\"a\":[2,{}]}");
  EXPECT_EQ(parse_json("\xEF\xBB\xBF{}", "f").dump(), "{}");
  for (const char* bad : {"", "{", "{\"a\":1,\"a\":2}", "[NaN]", "{} x", "\"\xff\"", "[1,]", "{'a':1}"}) {
    EXPECT_THROW(parse_json(bad, "f"), Error) << bad;
  }
  EXPECT_THROW(parse_json(std::string(100000, '['), "f"), Error);
  try {
    parse_json("{\n \"a\": ?}", "dir/config.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("dir/config.json: not valid JSON at line 2"), std::string::npos) << e.what();
  }
}

TEST(File, AtomicWriteLeavesNothingBehindOnFailure) {
  const std::string folder = testing::TempDir() + "graft_file_test";
  std::filesystem::create_directories(folder);
  write_file(folder + "/a", "one");
  {
    AtomicFile file(folder + "/a");
    file.write("two");
  }
  EXPECT_EQ(read_file(folder + "/a"), "one");
  write_file(folder + "/a", "three");
  EXPECT_EQ(read_file(folder + "/a"), "three");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  EXPECT_THROW(read_file(folder), Error);
  EXPECT_THROW(read_file(folder + "/missing"), Error);
  EXPECT_THROW(write_file(folder, "x"), Error);
  EXPECT_THROW(read_file(folder + "/a", 2), Error);
  EXPECT_EQ(MappedFile(folder + "/a").bytes().size(), 5u);
  std::filesystem::remove_all(folder);
}

TEST(View, StridesAndContiguity) {
  std::vector<float> data(24);
  const View<float, 3> v(data.data(), 2, 3, 4);
  EXPECT_EQ(&v(1, 2, 3), data.data() + 23);
  EXPECT_TRUE(v.contiguous());
  const View<float, 2> t(data.data(), {4, 3}, {1, 4});
  EXPECT_FALSE(t.contiguous());
}

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::kU64); ++i) {
    EXPECT_EQ(dtype_from_name(dtype_name(static_cast<DType>(i))), static_cast<DType>(i));
  }
  EXPECT_FALSE(dtype_from_name("F31").has_value());
}

TEST(Printable, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(printable("a\nb\x1b[0m\xff"), "a\\nb\\x1b[0m\\xff");
  EXPECT_EQ(printable("日本"), "日本");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
}

}  // namespace
}  // namespace graft
