#include "graft/base/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace graft {
namespace {

TEST(Buffer, WholeZeroedAndAlignedAtEverySize) {
  constexpr size_t kHuge = size_t{2} << 20;
  std::vector<Buffer> kept;  // side by side: a neighbour's bytes would show
  for (const size_t bytes : {size_t{1}, size_t{4096}, kHuge - 1, kHuge, kHuge + 1, 2 * kHuge + 4097, 5 * kHuge - 64}) {
    const Buffer& buffer = kept.emplace_back(bytes);
    const auto all = buffer.as<unsigned char>();
    ASSERT_EQ(all.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % (bytes >= kHuge ? kHuge : 64), 0u) << bytes;
    EXPECT_TRUE(std::all_of(all.begin(), all.end(), [](unsigned char byte) { return byte == 0; })) << bytes;
    std::fill(all.begin(), all.end(), static_cast<unsigned char>(kept.size()));
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const auto all = kept[i].as<unsigned char>();
    EXPECT_TRUE(std::all_of(all.begin(), all.end(), [&](unsigned char byte) { return byte == i + 1; })) << i;
  }
}

}  // namespace
}  // namespace graft
