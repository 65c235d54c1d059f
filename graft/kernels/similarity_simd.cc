#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/similarity_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/multi_sum_inl.h"
// clang-format on

#include "graft/kernels/similarity_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

float dot(const float* a, const float* b, int64_t n) noexcept {
  return row_sum(
      n, [=](const auto& io, int64_t j, auto acc) HWY_ATTR { return hn::MulAdd(io.load(a + j), io.load(b + j), acc); });
}

CosineSums cosine(const float* a, const float* b, int64_t n) noexcept {
  const auto block = [=](int64_t begin, int64_t size, float* sums) HWY_ATTR {
    fold_sums<3>(size, sums, [=](const auto& io, int64_t j, auto* acc) HWY_ATTR {
      const auto u = io.load(a + begin + j), v = io.load(b + begin + j);
      acc[0] = hn::MulAdd(u, v, acc[0]);
      acc[1] = hn::MulAdd(u, u, acc[1]);
      acc[2] = hn::MulAdd(v, v, acc[2]);
    });
  };
  float sums[3];
  if (n <= kSumBlock) {
    block(0, n, sums);
    return {sums[0], sums[1], sums[2]};
  }
  BlockSums<float> totals[3];
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    block(begin, n - begin < kSumBlock ? n - begin : kSumBlock, sums);
    for (int s = 0; s < 3; ++s) totals[s].add(sums[s]);
  }
  return {totals[0].finish(), totals[1].finish(), totals[2].finish()};
}

}  // namespace

constexpr SimilarityTable kSimilarityTable = {dot, cosine};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const SimilarityTable* similarity_simd() noexcept { return GRAFT_SIMD_TABLE(kSimilarityTable); }
}  // namespace graft
#endif
