#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/loss_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/softmax_inl.h"
// clang-format on

#include "graft/kernels/loss_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

SoftmaxSums<float> softmax_sums(const float* z, int64_t n) noexcept { return softmax_sums_of_row(z, n); }

float sum_logits(const float* z, int64_t n) noexcept {
  return sum_row(n, [z](auto d, int64_t j, auto acc) HWY_ATTR { return hn::Add(acc, hn::LoadU(d, z + j)); });
}

void softmax_gradient(float* z, int64_t n, float maximum, float inverse_sum, float smooth, float weight) noexcept {
  for_each(n, [=](auto d, int64_t j) HWY_ATTR {
    const auto e = exp_f32(d, hn::Sub(hn::LoadU(d, z + j), hn::Set(d, maximum)));
    const auto p = hn::MulSub(e, hn::Set(d, inverse_sum), hn::Set(d, smooth));
    hn::StoreU(hn::Mul(hn::Set(d, weight), p), d, z + j);
  });
}

}  // namespace
constexpr LossTable<float> kLossTable = {softmax_sums, sum_logits, softmax_gradient};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const LossTable<float>* loss_simd() noexcept { return GRAFT_SIMD_TABLE(kLossTable); }
}  // namespace graft
#endif
