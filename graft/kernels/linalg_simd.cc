#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/kernels/linalg_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "graft/kernels/attention_tile_inl.h"
// clang-format on

#include "graft/kernels/linalg_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {

// Rows whose sums are in registers at once; they share the loads of x.
constexpr int kDotRows = kLanes == 16 ? 4 : 1;

// The first `count` < kLanes elements, zeros after; nothing else is read.
HWY_INLINE Vec load_first(const float* from, int64_t count) {
  const Tag d;
#if HWY_TARGET == HWY_NEON
  HWY_ALIGN float some[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = from[i];
  return hn::Load(d, some);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(count)), d, from);
#endif
}

// Sums of kRows rows over one block.
template <int kRows>
HWY_INLINE void dot_block(const float* a, int64_t a_row, const float* x, int64_t n, float* sums) {
  const Tag d;
  Vec acc[kRows][kGroups];
  GRAFT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    GRAFT_UNROLL
    for (int64_t v = 0; v < kGroups; ++v) acc[r][v] = hn::Zero(d);
  }
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    if (j < 64) {  // the next rows begin: hardware prefetching ends with a page, which a row may fill
      GRAFT_UNROLL
      for (int r = 0; r < kRows; ++r) {
        GRAFT_UNROLL
        for (int64_t line = 0; line < 64; line += 16) __builtin_prefetch(a + (kRows + r) * a_row + j + line);
      }
    }
    GRAFT_UNROLL
    for (int64_t v = 0; v < kGroups; ++v) {
      const Vec at = hn::LoadU(d, x + j + v * kLanes);
      GRAFT_UNROLL
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = hn::MulAdd(hn::LoadU(d, a + r * a_row + j + v * kLanes), at, acc[r][v]);
      }
    }
  }
  // Absent terms are fma(+0, +0, sum): they change nothing.
  GRAFT_UNROLL
  for (int64_t v = 0; v < kGroups; ++v) {
    const int64_t left = n - j - v * kLanes;
    if (left <= 0) continue;
    const Vec at = left >= kLanes ? hn::LoadU(d, x + j + v * kLanes) : load_first(x + j + v * kLanes, left);
    GRAFT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float* row = a + r * a_row + j + v * kLanes;
      acc[r][v] = hn::MulAdd(left >= kLanes ? hn::LoadU(d, row) : load_first(row, left), at, acc[r][v]);
    }
  }
  GRAFT_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = tree_of_lanes(d, tree_of_vectors(acc[r]));
}

template <int kRows>
HWY_INLINE void dot_rows(const float* a, int64_t a_row, const float* x, int64_t n, float* out) {
  if (n <= kDotBlock) return dot_block<kRows>(a, a_row, x, n, out);
  double total[kRows] = {};
  float sums[kRows];
  for (int64_t begin = 0; begin < n; begin += kDotBlock) {
    dot_block<kRows>(a + begin, a_row, x + begin, smaller(kDotBlock, n - begin), sums);
    for (int r = 0; r < kRows; ++r) total[r] += static_cast<double>(sums[r]);
  }
  for (int r = 0; r < kRows; ++r) out[r] = static_cast<float>(total[r]);
}

void dots(const float* a, int64_t a_row, int64_t rows, const float* x, int64_t n, float* out) noexcept {
  int64_t r = 0;
  for (; r + kDotRows <= rows; r += kDotRows) dot_rows<kDotRows>(a + r * a_row, a_row, x, n, out + r);
  for (; r < rows; ++r) dot_rows<1>(a + r * a_row, a_row, x, n, out + r);
}

// Lanes lie over the rows that a solved x is taken from, so columns of the block are laid as rows first.
void solve_block(const float* a, int64_t a_row, int64_t n, Triangle triangle, float* t, int64_t t_row,
                 int64_t columns) noexcept {
  const Tag d;
  constexpr int64_t kColumns = 4;  // at once: a division waits for the one before it
  HWY_ALIGN float turned[kSolveBlock * kSolveBlock], x[kColumns][kSolveBlock] = {};
  if (n < kSolveBlock) fill(turned, kSolveBlock * kSolveBlock, 0);
  transpose(a, a_row, 1, n, n, turned, kSolveBlock);
  for (int64_t first = 0; first < columns; first += kColumns) {
    const int64_t now = smaller(kColumns, columns - first);
    for (int64_t c = 0; c < now; ++c) {
      for (int64_t i = 0; i < n; ++i) x[c][i] = t[(first + c) * t_row + i];
    }
    // A solved x is taken at once from the row after it, which waits for it, and one step later from the others.
    for (int64_t step = 0; step < n; ++step) {
      const int64_t r = triangle.lower ? step : n - 1 - step, before = triangle.lower ? r - 1 : r + 1;
      const float* column = turned + before * kSolveBlock;
      const int64_t begin = triangle.lower ? (r + 1) / kLanes * kLanes : 0, end = triangle.lower ? n : r;
      const Vec low = hn::Set(d, static_cast<float>(triangle.lower ? r + 1 : 0)),
                high = hn::Set(d, static_cast<float>(end));
      for (int64_t c = 0; c < now; ++c) {
        float solved = x[c][r];
        if (step > 0) solved = __builtin_fmaf(-column[r], x[c][before], solved);
        if (!triangle.unit_diagonal) solved /= turned[r * kSolveBlock + r];
        if (step > 0) {
          const Vec last = hn::Set(d, x[c][before]);
          for (int64_t i = begin; i < end; i += kLanes) {
            const Vec old = hn::Load(d, x[c] + i), at = hn::Iota(d, static_cast<float>(i));
            const Vec now_known = hn::NegMulAdd(hn::Load(d, column + i), last, old);
            hn::Store(hn::IfThenElse(hn::And(hn::Ge(at, low), hn::Lt(at, high)), now_known, old), d, x[c] + i);
          }
        }
        x[c][r] = solved;
      }
    }
    for (int64_t c = 0; c < now; ++c) {
      for (int64_t i = 0; i < n; ++i) t[(first + c) * t_row + i] = x[c][i];
    }
  }
}

using FourTag = hn::FixedTag<float, 4>;
using Four = hn::Vec<FourTag>;

// x[c[0]] … x[c[count - 1]], zeros after. Loads by register: a gather instruction takes twice as long on Zen 4, and no less
// elsewhere.
HWY_INLINE Four gather_first([[maybe_unused]] FourTag d, const float* x, const uint32_t* c, int64_t count) {
#if HWY_ARCH_X86
  const float second = count > 1 ? x[c[1]] : 0, third = count > 2 ? x[c[2]] : 0, fourth = count > 3 ? x[c[3]] : 0;
  return Four{_mm_set_ps(fourth, third, second, x[c[0]])};
#else
  HWY_ALIGN float some[4] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = x[c[i]];
  return hn::Load(d, some);
#endif
}

// One row's sum over a block of entries.
HWY_INLINE float sparse_block(const float* values, const uint32_t* columns, const float* x, int64_t n) {
  const FourTag d;
  Four acc[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + kCsrLanes <= n; i += kCsrLanes) {
    GRAFT_UNROLL
    for (int64_t v = 0; v < 4; ++v) {
      acc[v] = hn::MulAdd(hn::LoadU(d, values + i + 4 * v), gather_first(d, x, columns + i + 4 * v, 4), acc[v]);
    }
  }
  GRAFT_UNROLL
  for (int64_t v = 0; v < 4; ++v) {
    const int64_t at = i + 4 * v, left = n - at;
    if (left >= 4) {
      acc[v] = hn::MulAdd(hn::LoadU(d, values + at), gather_first(d, x, columns + at, 4), acc[v]);
    } else if (left > 0) {  // absent entries are fma(+0, +0, sum): they change nothing
      HWY_ALIGN float entries[4] = {};
      for (int64_t e = 0; e < left; ++e) entries[e] = values[at + e];
      acc[v] = hn::MulAdd(hn::Load(d, entries), gather_first(d, x, columns + at, left), acc[v]);
    }
  }
  return tree_of_lanes(d, hn::Add(hn::Add(acc[0], acc[2]), hn::Add(acc[1], acc[3])));
}

void spmv(const CsrMatrix& a, const float* x, int64_t first, int64_t last, float* y) noexcept {
  const float* values = a.values.data();
  const uint32_t *columns = a.col_idx.data(), *row = a.row_ptr.data();
  for (int64_t r = first; r < last; ++r) {
    const int64_t from = row[r], n = row[r + 1] - from;
    if (n <= kDotBlock) {
      y[r] = sparse_block(values + from, columns + from, x, n);
      continue;
    }
    double total = 0;
    for (int64_t i = 0; i < n; i += kDotBlock) {
      total += static_cast<double>(sparse_block(values + from + i, columns + from + i, x, smaller(kDotBlock, n - i)));
    }
    y[r] = static_cast<float>(total);
  }
}

void outer_row(float u, const float* v, float* y, int64_t n, bool stream) noexcept {
  const Tag d;
  const Vec factor = hn::Set(d, u);
  int64_t j = 0;
  if (stream) {
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float)) % kLanes;
    for (const int64_t head = beyond == 0 ? 0 : kLanes - beyond; j < n && j < head; ++j) y[j] = u * v[j];
    for (; j + kLanes <= n; j += kLanes) hn::Stream(hn::Mul(factor, hn::LoadU(d, v + j)), d, y + j);
  }
  for (; j + kLanes <= n; j += kLanes) hn::StoreU(hn::Mul(factor, hn::LoadU(d, v + j)), d, y + j);
  for (; j < n; ++j) y[j] = u * v[j];
  if (stream) hwy::FlushStream();
}

}  // namespace

constexpr LinalgTable kLinalgTable = {dots, solve_block, spmv, outer_row};

}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const LinalgTable* linalg_simd() noexcept { return GRAFT_SIMD_TABLE(kLinalgTable); }
}  // namespace graft
#endif
