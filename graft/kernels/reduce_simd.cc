#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/reduce_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/reduce_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

float sum(const float* x, int64_t n) noexcept {
  return sum_block_f32(n, [=](auto d, int64_t j, auto acc) HWY_ATTR { return hn::Add(acc, hn::LoadU(d, x + j)); });
}
float square_sum(const float* x, int64_t n) noexcept {
  return sum_block_f32(n, [=](auto d, int64_t j, auto acc) HWY_ATTR {
    const auto v = hn::LoadU(d, x + j);
    return hn::MulAdd(v, v, acc);
  });
}
float abs_sum(const float* x, int64_t n) noexcept {
  return sum_block_f32(
      n, [=](auto d, int64_t j, auto acc) HWY_ATTR { return hn::Add(acc, hn::Abs(hn::LoadU(d, x + j))); });
}
float masked_sum(const float* x, const uint8_t* mask, int64_t n) noexcept {
  return sum_block_f32(n, [=](auto d, int64_t j, auto acc) HWY_ATTR {
    const hn::Rebind<uint8_t, decltype(d)> bytes;
    const hn::RebindToUnsigned<decltype(d)> words;
    const auto kept = hn::Ne(hn::PromoteTo(words, hn::LoadU(bytes, mask + j)), hn::Zero(words));
    return hn::Add(acc, hn::IfThenElseZero(hn::RebindMask(d, kept), hn::LoadU(d, x + j)));
  });
}
float centred_square_sum(const float* x, float centre, int64_t n) noexcept {
  return sum_block_f32(n, [=](auto d, int64_t j, auto acc) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, x + j), hn::Set(d, centre));
    return hn::MulAdd(v, v, acc);
  });
}
float max(const float* x, int64_t n) noexcept { return max_row_block(x, n); }
float min(const float* x, int64_t n) noexcept {
  return -reduce_block(
      RowTag(), n, -std::numeric_limits<float>::infinity(),
      [x](auto d, int64_t j, auto m) HWY_ATTR { return MaxOrNan()(d, m, hn::Neg(hn::LoadU(d, x + j))); }, MaxOrNan());
}

int64_t first_equal(const float* x, float value, int64_t n) noexcept {
  int64_t j = 0;
  const bool nan = value != value;
  for (; j + kRowLanes <= n; j += kRowLanes) {
    const auto v = hn::LoadU(RowTag(), x + j);
    const auto hit = nan ? hn::IsNaN(v) : hn::Eq(v, hn::Set(RowTag(), value));
    const intptr_t at = hn::FindFirstTrue(RowTag(), hit);
    if (at >= 0) return j + at;
  }
  for (; j < n; ++j) {
    if (x[j] == value || (nan && x[j] != x[j])) return j;
  }
  return n;
}

int64_t count_above(const float* x, float threshold, int64_t n) noexcept {
  const auto limit = hn::Set(RowTag(), threshold);
  int64_t count = 0, j = 0;
  for (; j + kRowLanes <= n; j += kRowLanes) {
    count += static_cast<int64_t>(hn::CountTrue(RowTag(), hn::Gt(hn::LoadU(RowTag(), x + j), limit)));
  }
  for (; j < n; ++j) count += x[j] > threshold ? 1 : 0;
  return count;
}

void histogram(const float* x, float low, float high, float scale, int64_t bins, uint32_t* counts, int64_t n) noexcept {
  const hn::RebindToSigned<RowTag> di;
  const auto lo = hn::Set(RowTag(), low), hi = hn::Set(RowTag(), high), s = hn::Set(RowTag(), scale);
  const auto last = hn::Set(di, static_cast<int32_t>(bins - 1));
  HWY_ALIGN int32_t bin[16];
  int64_t j = 0;
  for (; j + kRowLanes <= n; j += kRowLanes) {
    const auto v = hn::LoadU(RowTag(), x + j);
    const auto inside = hn::And(hn::Ge(v, lo), hn::Le(v, hi));
    const auto at = hn::Min(hn::ConvertTo(di, hn::Mul(hn::Sub(v, lo), s)), last);
    hn::Store(hn::IfThenElse(hn::RebindMask(di, inside), at, hn::Set(di, -1)), di, bin);
    if (hn::AllTrue(RowTag(), inside)) {
      for (int64_t k = 0; k < kRowLanes; ++k) ++counts[(k % kHistogramCopies) * bins + bin[k]];
    } else {
      for (int64_t k = 0; k < kRowLanes; ++k) {
        if (bin[k] >= 0) ++counts[(k % kHistogramCopies) * bins + bin[k]];
      }
    }
  }
  for (; j < n; ++j) {
    if (!(x[j] >= low && x[j] <= high)) continue;
    const auto at = static_cast<int64_t>((x[j] - low) * scale);
    ++counts[at < bins ? at : bins - 1];
  }
}

}  // namespace

constexpr ReduceTable kReduceTable = {sum, square_sum, abs_sum,     masked_sum,  centred_square_sum,
                                      max, min,        first_equal, count_above, histogram};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const ReduceTable* reduce_simd() noexcept { return GRAFT_SIMD_TABLE(kReduceTable); }
}  // namespace graft
#endif
