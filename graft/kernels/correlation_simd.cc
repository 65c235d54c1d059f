#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/correlation_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/multi_sum_inl.h"
// clang-format on

#include "graft/kernels/correlation_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

using Row = hn::Vec<RowTag>;

PairSums sums(const float* x, const float* y, int64_t n) noexcept {
  float s[2];
  fold_sums<2>(n, s, [=](const auto& io, int64_t j, auto* acc) HWY_ATTR {
    acc[0] = hn::Add(acc[0], io.load(x + j));
    acc[1] = hn::Add(acc[1], io.load(y + j));
  });
  return {s[0], s[1]};
}
PairMoments moments(const float* x, const float* y, float x_centre, float y_centre, int64_t n) noexcept {
  float s[5];
  fold_sums<5>(n, s, [=](const auto& io, int64_t j, auto* acc) HWY_ATTR {
    hwy::Prefetch(x + j + kSumBlock);  // this pass finds its block in L1: memory would have nothing to do
    hwy::Prefetch(y + j + kSumBlock);
    const auto d = hn::Sub(io.load(x + j), hn::Set(io.d, x_centre));
    const auto e = hn::Sub(io.load(y + j), hn::Set(io.d, y_centre));
    acc[0] = hn::Add(acc[0], d);
    acc[1] = hn::Add(acc[1], e);
    acc[2] = hn::MulAdd(d, d, acc[2]);
    acc[3] = hn::MulAdd(e, e, acc[3]);
    acc[4] = hn::MulAdd(d, e, acc[4]);
  });
  return {s[0], s[1], s[2], s[3], s[4]};
}
float product(const float* x, const float* w, int64_t n) noexcept {
  return row_sum(
      n, [=](const auto& io, int64_t j, auto acc) HWY_ATTR { return hn::MulAdd(io.load(w + j), io.load(x + j), acc); });
}
PairSums weighted(const float* x, const float* w, int64_t n) noexcept {
  float s[2];
  fold_sums<2>(n, s, [=](const auto& io, int64_t j, auto* acc) HWY_ATTR {
    const auto weight = io.load(w + j);
    acc[0] = hn::MulAdd(weight, io.load(x + j), acc[0]);
    acc[1] = hn::Add(acc[1], weight);
  });
  return {s[0], s[1]};
}

constexpr int64_t kVectors = kPanel / kRowLanes;  // of a row of a panel

// The 16 columns of a row of x, 0 past `columns`.
HWY_INLINE void load_columns(const float* x, int64_t columns, Row* v) {
  if (columns == kPanel) {
    for (int64_t i = 0; i < kVectors; ++i) v[i] = hn::LoadU(RowTag(), x + i * kRowLanes);
    return;
  }
  HWY_ALIGN float whole[kPanel] = {};
  for (int64_t c = 0; c < columns; ++c) whole[c] = x[c];
  for (int64_t i = 0; i < kVectors; ++i) v[i] = hn::Load(RowTag(), whole + i * kRowLanes);
}

// The sums read whole rows, as memory wants it; then the block is in L2, and is centred panel by panel.
void centre_panels(const float* x, int64_t stride, int64_t rows, int64_t columns, float* panels, float* centre,
                   float* rest) noexcept {
  const RowTag d;
  const int64_t padded = (columns + kPanel - 1) / kPanel * kPanel;
  const int64_t whole = columns / kRowLanes * kRowLanes;
  for (int64_t c = 0; c < padded; ++c) centre[c] = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * stride;
    int64_t c = 0;
    for (; c < whole; c += kRowLanes) {
      hn::StoreU(hn::Add(hn::LoadU(d, centre + c), hn::LoadU(d, row + c)), d, centre + c);
    }
    for (; c < columns; ++c) centre[c] += row[c];
  }
  const auto count = hn::Set(d, static_cast<float>(rows));
  for (int64_t c = 0; c < padded; c += kRowLanes) hn::StoreU(hn::Div(hn::LoadU(d, centre + c), count), d, centre + c);
  for (int64_t first = 0; first < padded; first += kPanel) {
    const int64_t wide = HWY_MIN(kPanel, columns - first);
    float* panel = panels + first * kPanelRows;
    Row v[kVectors], mean[kVectors], sum[kVectors];
    for (int64_t i = 0; i < kVectors; ++i) {
      mean[i] = hn::LoadU(d, centre + first + i * kRowLanes);
      sum[i] = hn::Zero(d);
    }
    for (int64_t r = 0; r < rows; ++r) {
      load_columns(x + r * stride + first, wide, v);
      for (int64_t i = 0; i < kVectors; ++i) {
        const Row apart = hn::Sub(v[i], mean[i]);
        hn::StoreU(apart, d, panel + r * kPanel + i * kRowLanes);
        sum[i] = hn::Add(sum[i], apart);
      }
    }
    for (int64_t i = 0; i < kVectors; ++i) hn::StoreU(sum[i], d, rest + first + i * kRowLanes);
  }
}

// kA columns of `own` against kPanels panels: every sum stays in a register over all rows.
template <int64_t kA, int64_t kPanels>
HWY_INLINE void product_tile(const float* own, const float* other, int64_t rows, float* y, int64_t stride) {
  constexpr int64_t kB = kPanels * kVectors;
  [&]<size_t... K, size_t... A, size_t... B>(std::index_sequence<K...>, std::index_sequence<A...>,
                                             std::index_sequence<B...>) HWY_ATTR {
    Row acc[] = {((void)K, hn::Zero(RowTag()))...};
    for (int64_t r = 0; r < rows; ++r) {
      const Row b[] = {hn::LoadU(RowTag(), other + static_cast<int64_t>(B) / kVectors * kPanelSize + r * kPanel +
                                               static_cast<int64_t>(B) % kVectors * kRowLanes)...};
      const auto column = [&](size_t a) HWY_ATTR {
        const Row v = hn::Set(RowTag(), own[r * kPanel + static_cast<int64_t>(a)]);
        ((acc[a * kB + B] = hn::MulAdd(v, b[B], acc[a * kB + B])), ...);
      };
      ((column(A)), ...);
    }
    ((hn::StoreU(acc[K], RowTag(),
                 y + static_cast<int64_t>(K) / kB * stride + static_cast<int64_t>(K) % kB * kRowLanes)),
     ...);
  }
  (std::make_index_sequence<static_cast<size_t>(kA * kB)>(), std::make_index_sequence<static_cast<size_t>(kA)>(),
   std::make_index_sequence<static_cast<size_t>(kB)>());
}

void products(const float* panels, int64_t rows, int64_t at, int64_t num_panels, float* y, int64_t stride) noexcept {
  constexpr int64_t kA = HWY_MAX_BYTES == 64 ? 8 : 4;
  for (int64_t a = 0; a < kPanel; a += kA) {
    const float* own = panels + at * kPanelSize + a;
    int64_t p = at;
    const auto tile = [&](auto count) HWY_ATTR {
      constexpr int64_t kPanels = decltype(count)::value;
      product_tile<kA, kPanels>(own, panels + p * kPanelSize, rows, y + a * stride + p * kPanel, stride);
      p += kPanels;
    };
#if HWY_MAX_BYTES == 64
    while (num_panels - p >= 3) tile(std::integral_constant<int64_t, 3>());
    if (num_panels - p == 2) tile(std::integral_constant<int64_t, 2>());
#endif
    while (p < num_panels) tile(std::integral_constant<int64_t, 1>());
  }
}

void merge(const float* block, const double* rest, const double* delta, double p, double q, double* m,
           int64_t n) noexcept {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(d));
  const auto vp = hn::Set(d, p), vq = hn::Set(d, q);
  for (int64_t b = 0; b < n; b += kLanes) {  // n is a multiple of 16
    auto v = hn::MulAdd(vp, hn::LoadU(d, rest + b), hn::PromoteTo(d, hn::LoadU(df, block + b)));
    v = hn::MulAdd(vq, hn::LoadU(d, delta + b), v);
    hn::StoreU(hn::Add(hn::LoadU(d, m + b), v), d, m + b);
  }
}

}  // namespace

constexpr CorrelationTable kCorrelationTable = {sums, moments, product, weighted, centre_panels, products, merge};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const CorrelationTable* correlation_simd() noexcept { return GRAFT_SIMD_TABLE(kCorrelationTable); }
}  // namespace graft
#endif
