// Moments of rows (norm_ref_inl.h) in Highway: the same bits. Include after hwy/highway.h; compiled once per target.

#if defined(GRAFT_KERNELS_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRAFT_KERNELS_NORM_INL_H_
#undef GRAFT_KERNELS_NORM_INL_H_
#else
#define GRAFT_KERNELS_NORM_INL_H_
#endif

#include "graft/base/view.h"
#include "graft/kernels/row_io_inl.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kBatch = 16;        // rows at once, so that one row's tree does not wait for another's
constexpr int64_t kBatchSize = 4096;  // elements at once: they stay in L1 between the passes

HWY_INLINE int64_t rows_at_once(int64_t n) {
  const int64_t fit = kBatchSize / (n > 0 ? n : 1);
  return fit < 1 ? 1 : fit < kBatch ? fit : kBatch;
}

// Two sums of a row, in one pass over it where the lanes of both fit the registers. step as in fold_two_blocks.
template <class Step>
HWY_INLINE void two_row_sums(int64_t n, const Step& step, float* a, float* b) {
#if !HWY_MEM_OPS_MIGHT_FAULT
  if constexpr (kSumLanes / kRowLanes <= 4) {
    if (n <= kSumBlock) return fold_two_blocks(n, step, a, b);
  }
#endif
  *a = row_sum(n, [&](const auto& io, int64_t j, auto acc) HWY_ATTR {
    auto other = acc;
    step(io, j, acc, other);
    return acc;
  });
  *b = row_sum(n, [&](const auto& io, int64_t j, auto acc) HWY_ATTR {
    auto other = acc;
    step(io, j, other, acc);
    return acc;
  });
}

// Of up to kBatch rows: centre, rest and rstd of Moments, and -rest rstd.
struct RowMoments {
  HWY_ALIGN float centre[kBatch];
  HWY_ALIGN float rest[kBatch];
  HWY_ALIGN float rstd[kBatch];
  HWY_ALIGN float shift[kBatch];

  HWY_INLINE void take(View<const float, 2> x, int64_t first, int64_t count, float eps) {
    const int64_t n = x.extent(1);
    const auto size = static_cast<float>(n);
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      centre[r] =
          row_sum(n, [in](const auto& io, int64_t j, auto acc) HWY_ATTR { return hn::Add(acc, io.load(in + j)); });
    }
    each_lane(count, [=, this](const auto& io, int64_t r)
                         HWY_ATTR { io.store(hn::Div(io.load(centre + r), hn::Set(io.d, size)), centre + r); });
    for (int64_t r = 0; r < count; ++r) {
      const float* in = x.row(first + r);
      const float c = centre[r];
      two_row_sums(
          n,
          [=](const auto& io, int64_t j, auto& sum, auto& squares) HWY_ATTR {
            const auto apart = hn::Sub(io.load(in + j), hn::Set(io.d, c));
            sum = hn::Add(sum, apart);
            squares = hn::MulAdd(apart, apart, squares);
          },
          rest + r, rstd + r);
    }
    each_lane(count, [=, this](const auto& io, int64_t r) HWY_ATTR {
      const auto d = hn::Div(io.load(rest + r), hn::Set(io.d, size));
      const auto squares = hn::Div(io.load(rstd + r), hn::Set(io.d, size));
      const auto raw = hn::NegMulAdd(d, d, squares);
      const auto var = hn::IfThenElse(hn::Lt(raw, hn::Zero(io.d)), hn::Zero(io.d), raw);
      const auto scale = hn::Div(hn::Set(io.d, 1.0f), hn::Sqrt(hn::Add(var, hn::Set(io.d, eps))));
      io.store(d, rest + r);
      io.store(scale, rstd + r);
      io.store(hn::Mul(hn::Neg(d), scale), shift + r);
    });
  }
};

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
