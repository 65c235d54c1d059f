// Maximum and sum of a row's softmax (softmax_sums_ref_inl.h) in Highway: the same bits. Include after hwy/highway.h; compiled once per
// target.

#if defined(GRAFT_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_SOFTMAX_INL_H_
#undef GRAFT_KERNELS_SOFTMAX_INL_H_
#else
#define GRAFT_KERNELS_SOFTMAX_INL_H_
#endif

#include <limits>

#include "graft/kernels/math_inl.h"
#include "graft/kernels/row_io_inl.h"
#include "graft/kernels/softmax_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr float kNoMaximum = -std::numeric_limits<float>::infinity();

// The larger; any value where one is NaN: the sum of exponentials is NaN then, whatever the maximum.
struct MaxOfNumbers {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D /*d*/, hn::Vec<D> a, hn::Vec<D> b) const {
    return hn::Max(a, b);
  }
};

// Of one block, n at most kSumBlock.
HWY_INLINE float block_maximum(const float* z, int64_t n) {
  return fold_block(
      n, kNoMaximum, [z](const auto& io, int64_t j, auto m) HWY_ATTR { return hn::Max(m, io.load(z + j)); },
      MaxOfNumbers());
}

// While all is -infinity, 0 stands in for the maximum, so that -infinity - -infinity never shows.
HWY_INLINE float shift_of(float maximum) { return maximum == kNoMaximum ? 0.0f : maximum; }

// The sum of e^(z - shift) over one block; `keep(io, e, j)` sees every exponential.
template <class Keep>
HWY_INLINE float block_exponentials(const float* z, float shift, int64_t n, const Keep& keep) {
  return fold_block(
      n, 0.0f,
      [&](const auto& io, int64_t j, auto acc) HWY_ATTR {
        const auto e = exp_f32(io.d, hn::Sub(io.load(z + j), hn::Set(io.d, shift)));
        keep(io, e, j);
        return hn::Add(acc, e);
      },
      AddLanes());
}

HWY_INLINE SoftmaxSums<float> softmax_sums_of_row(const float* z, int64_t n) {
  float maximum = kNoMaximum, sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t size = n - begin < kSumBlock ? n - begin : kSumBlock;
    const float top = block_maximum(z + begin, size);
    const float next = top > maximum || top != top ? top : maximum;
    const float shift = shift_of(next);
    const float block = block_exponentials(z + begin, shift, size, [](const auto&, auto, int64_t) HWY_ATTR {});
    const LaneTag one;
    const auto rescale = exp_f32(one, hn::Set(one, maximum - shift));
    sum = hn::GetLane(hn::MulAdd(hn::Set(one, sum), rescale, hn::Set(one, block)));
    maximum = next;
  }
  return {maximum, sum};
}

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
