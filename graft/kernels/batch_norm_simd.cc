#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/batch_norm_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/norm_inl.h"
// clang-format on

#include "graft/kernels/batch_norm_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// The moments of rows [begin, begin + rows) join mean and m2. kEight: all kMomentRows of them.
template <bool kEight>
HWY_INLINE void join_rows(View<const float, 2> x, int64_t begin, int64_t rows, float* mean, float* m2) {
  const Join join = join_of(begin, rows);
  const float* in[kMomentRows];
  for (int64_t i = 0; i < kMomentRows; ++i) in[i] = x.row(begin + (i < rows ? i : 0));
  const auto count = static_cast<float>(rows);
  each_lane(x.extent(1), [&](const auto& io, int64_t j) HWY_ATTR {
    const auto at = [&](int64_t i) HWY_ATTR { return io.load(in[i] + j); };
    auto part = at(0), squares = hn::Zero(io.d);
    if constexpr (kEight) {
      const auto even = hn::Add(hn::Add(part, at(4)), hn::Add(at(2), at(6)));
      const auto odd = hn::Add(hn::Add(at(1), at(5)), hn::Add(at(3), at(7)));
      part = hn::Mul(hn::Add(even, odd), hn::Set(io.d, 0.125f));
      for (int64_t i = 0; i < kMomentRows; ++i) {
        const auto apart = hn::Sub(at(i), part);
        squares = hn::MulAdd(apart, apart, squares);
      }
    } else {
      for (int64_t i = 1; i < rows; ++i) part = hn::Add(part, at(i));
      part = hn::Div(part, hn::Set(io.d, count));
      for (int64_t i = 0; i < rows; ++i) {
        const auto apart = hn::Sub(at(i), part);
        squares = hn::MulAdd(apart, apart, squares);
      }
    }
    if (begin == 0) {
      io.store(part, mean + j);
      io.store(squares, m2 + j);
      return;
    }
    const auto before = io.load(mean + j);
    const auto delta = hn::Sub(part, before);
    io.store(hn::MulAdd(delta, hn::Set(io.d, join.mean_part), before), mean + j);
    io.store(hn::MulAdd(hn::Mul(delta, delta), hn::Set(io.d, join.m2_part), hn::Add(io.load(m2 + j), squares)), m2 + j);
  });
}

void column_moments(View<const float, 2> x, float* mean, float* m2) noexcept {
  int64_t begin = 0;
  for (; begin + kMomentRows <= x.extent(0); begin += kMomentRows) {
    join_rows<true>(x, begin, kMomentRows, mean, m2);
  }
  if (begin < x.extent(0)) join_rows<false>(x, begin, x.extent(0) - begin, mean, m2);
}

RunMoments run_moments(const float* x, int64_t n) noexcept {
  const float sum =
      row_sum(n, [x](const auto& io, int64_t j, auto acc) HWY_ATTR { return hn::Add(acc, io.load(x + j)); });
  RunMoments m = {sum / static_cast<float>(n), 0, 0};
  const float c = m.centre;
  two_row_sums(
      n,
      [=](const auto& io, int64_t j, auto& total, auto& squares) HWY_ATTR {
        const auto apart = hn::Sub(io.load(x + j), hn::Set(io.d, c));
        total = hn::Add(total, apart);
        squares = hn::MulAdd(apart, apart, squares);
      },
      &m.rest, &m.squares);
  return m;
}

void scale_columns(View<const float, 2> x, const float* c, const float* a, const float* b, View<float, 2> y,
                   bool stream) noexcept {
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const float* in = x.row(i);
    fill_row(y.row(i), x.extent(1), stream, [=](const auto& io, int64_t j) HWY_ATTR {
      return hn::MulAdd(hn::Sub(io.load(in + j), io.load(c + j)), io.load(a + j), io.load(b + j));
    });
  }
  fence_stream(stream);
}

void scale_run(const float* x, float c, float a, float b, float* y, int64_t n, bool stream) noexcept {
  fill_row(y, n, stream, [=](const auto& io, int64_t j) HWY_ATTR {
    return hn::MulAdd(hn::Sub(io.load(x + j), hn::Set(io.d, c)), hn::Set(io.d, a), hn::Set(io.d, b));
  });
  fence_stream(stream);
}

}  // namespace

constexpr BatchNormTable kBatchNormTable = {column_moments, run_moments, scale_columns, scale_run};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const BatchNormTable* batch_norm_simd() noexcept { return GRAFT_SIMD_TABLE(kBatchNormTable); }
}  // namespace graft
#endif
