#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/attention_scores_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/attention_tile_inl.h"
// clang-format on

#include "graft/kernels/attention_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void lay_keys(const float* from, int64_t rows, int64_t d, float* to) noexcept {
  if (rows < kKeyBlock) fill(to, d * kKeyBlock, 0);
  transpose(from, d, 1, rows, d, to, kKeyBlock);
}

void score(const float* q, int64_t rows, int64_t d, const float* keys, float scale, float* to,
           int64_t to_row) noexcept {
  product(Matrix{q, d, 1}, keys, kKeyBlock, Whole{d}, rows, kKeyBlock, FromZero{}, StoreScaled{to, to_row, scale});
}

}  // namespace

constexpr AttentionScores kScores = {lay_keys, score};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const AttentionScores* attention_scores_simd() noexcept { return GRAFT_SIMD_TABLE(kScores); }
}  // namespace graft
#endif
