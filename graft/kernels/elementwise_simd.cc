#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/elementwise_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "graft/kernels/reduce_inl.h"
// clang-format on

#include "graft/kernels/elementwise_table.h"
#include "graft/kernels/rows.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

void add_rows(View<const float, 2> a, View<const float, 2> b, View<float, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const float *left = a.row(i), *right = b.row(i);
    float* out = y.row(i);
    for_each(y.extent(1), [=](auto d, int64_t j) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, left + j), hn::LoadU(d, right + j)), d, out + j);
    });
  }
}

void column_scale_rows(View<const float, 2> z, const float* ratio, const float* bias, View<float, 2> y) noexcept {
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const float* in = z.row(i);
    float* out = y.row(i);
    if (bias != nullptr) {
      for_each(y.extent(1), [=](auto d, int64_t j) HWY_ATTR {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, in + j), hn::LoadU(d, ratio + j), hn::LoadU(d, bias + j)), d, out + j);
      });
    } else {
      for_each(y.extent(1), [=](auto d, int64_t j) HWY_ATTR {
        hn::StoreU(hn::Mul(hn::LoadU(d, in + j), hn::LoadU(d, ratio + j)), d, out + j);
      });
    }
  }
}

// Chains over blocks of rows: add(sums, row) takes in a row, finish(sums) hands a block on.
template <class AddRow, class Finish>
HWY_INLINE void sum_columns(int64_t rows, int64_t columns, const AddRow& add_row, const Finish& finish) {
  HWY_ALIGN float block[kStripe];
  float* sums = block;
  for (int64_t begin = 0; begin < rows; begin += kRowSumBlock) {
    for (int64_t j = 0; j < columns; ++j) sums[j] = 0;
    const int64_t end = begin + kRowSumBlock < rows ? begin + kRowSumBlock : rows;
    for (int64_t i = begin; i < end; ++i) add_row(sums, i);
    for (int64_t j = 0; j < columns; ++j) finish(sums[j], j);
  }
}

void column_scale_backward_columns(View<const float, 2> dy, View<const float, 2> z, const float* norm,
                                   float* dmagnitude) noexcept {
  const int64_t n = dy.extent(1);
  sum_columns(
      dy.extent(0), n,
      [&](float* sums, int64_t i) HWY_ATTR {
        const float *up = dy.row(i), *in = z.row(i);
        for_each(n, [=](auto d, int64_t j) HWY_ATTR {
          hn::StoreU(hn::MulAdd(hn::LoadU(d, up + j), hn::LoadU(d, in + j), hn::LoadU(d, sums + j)), d, sums + j);
        });
      },
      [=](float sum, int64_t j) HWY_ATTR { dmagnitude[j] += sum / norm[j]; });
}

void sum_rows_columns(View<const float, 2> dy, float* dbias) noexcept {
  const int64_t n = dy.extent(1);
  sum_columns(
      dy.extent(0), n,
      [&](float* sums, int64_t i) HWY_ATTR {
        const float* up = dy.row(i);
        for_each(n, [=](auto d, int64_t j)
                        HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, sums + j), hn::LoadU(d, up + j)), d, sums + j); });
      },
      [=](float sum, int64_t j) HWY_ATTR { dbias[j] += sum; });
}

using WordTag = hn::RebindToUnsigned<RowTag>;
using Words = hn::Vec<WordTag>;

// High words of the products of all lanes.
HWY_INLINE Words multiply_high(WordTag d, Words a, Words b) {
  const hn::RepartitionToWide<WordTag> wide;
  const auto even = hn::MulEven(a, b);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a))),
                               hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, b))));
  return hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
}

// philox4x32 of base/random.h, a block in every lane.
HWY_INLINE void philox(WordTag d, uint32_t key0, uint32_t key1, Words& c0, Words& c1, Words& c2, Words& c3) {
  const Words m0 = hn::Set(d, 0xD2511F53u), m1 = hn::Set(d, 0xCD9E8D57u);
  for (int round = 0; round < 10; ++round) {
    const Words high0 = multiply_high(d, c0, m0), low0 = hn::Mul(c0, m0);
    const Words high1 = multiply_high(d, c2, m1), low1 = hn::Mul(c2, m1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, key0));
    c1 = low1;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, key1));
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

void dropout_rows(const DropoutDraw<float>& draw, const uint64_t* row_keys, View<const float, 2> x,
                  View<float, 2> y) noexcept {
  const WordTag d32;
  const int64_t n = y.extent(1), step = 4 * kRowLanes;
  const float scale = draw.scale;
  const auto threshold = static_cast<float>(draw.threshold);
  HWY_ALIGN uint32_t words[4 * kRowLanes];
  const uint32_t* drawn = words;
  for (int64_t i = 0; i < y.extent(0); ++i) {
    const auto low = static_cast<uint32_t>(row_keys[i]), high = static_cast<uint32_t>(row_keys[i] >> 32);
    for (int64_t begin = 0; begin < n; begin += step) {
      Words c0 = hn::Iota(d32, static_cast<uint32_t>(begin / 4));
      Words c1 = hn::Set(d32, draw.update), c2 = hn::Set(d32, low), c3 = hn::Set(d32, high);
      philox(d32, draw.key[0], draw.key[1], c0, c1, c2, c3);
      hn::StoreInterleaved4(c0, c1, c2, c3, d32, words);
      const float* in = x.row(i) + begin;
      float* out = y.row(i) + begin;
      for_each(n - begin < step ? n - begin : step, [=](auto d, int64_t j) HWY_ATTR {
        const hn::RebindToUnsigned<decltype(d)> du;
        const hn::RebindToSigned<decltype(d)> di;
        // 24 bits: exact as a float.
        const auto word = hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<8>(hn::LoadU(du, drawn + j))));
        const auto keep = hn::Ge(word, hn::Set(d, threshold));
        hn::StoreU(hn::IfThenElseZero(keep, hn::Mul(hn::LoadU(d, in + j), hn::Set(d, scale))), d, out + j);
      });
    }
  }
}

}  // namespace
constexpr ElementwiseTable<float> kElementwiseTable = {add_rows, column_scale_rows, column_scale_backward_columns,
                                                       sum_rows_columns, dropout_rows};
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const ElementwiseTable<float>* elementwise_simd() noexcept { return GRAFT_SIMD_TABLE(kElementwiseTable); }
}  // namespace graft
#endif
