#include "graft/kernels/norm.h"

#include <cassert>

#include "graft/kernels/norm_table.h"
#include "graft/kernels/prng.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const NormTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const NormTable<float>* simd = norm_simd()) return *simd;
  }
  return pick_reference(norm_ref<T>(), norm_fma<T>());
}

int64_t row_blocks(int64_t rows) noexcept { return (rows + kRowSumBlock - 1) / kRowSumBlock; }

// Whether the sums over rows are taken along with dx, block by block: then x and dy are read once. Needs blocks enough for the threads,
// and `sums` rows of scratch for each.
bool fuses(const Context& context, int64_t rows, int64_t n, int64_t sums, size_t element) noexcept {
  const int64_t blocks = row_blocks(rows), kept = context.num_threads() == 1 ? 1 : blocks;
  return rows > 0 && (context.num_threads() == 1 || blocks >= context.num_threads()) &&
         context.reserved().shared >= static_cast<size_t>(kept * sums * n) * element;
}

// block(first, last, chains) for every block of rows, chains [sums, n] cleared before; then total[k] += chains of sum k, blocks ascending.
template <typename T, size_t kSums, typename Block>
void sum_while_writing(Context& context, int64_t rows, int64_t n, const std::array<T*, kSums>& total,
                       Block&& block) noexcept {
  const auto size = static_cast<int64_t>(kSums) * n;
  const bool serial = context.num_threads() == 1;
  const auto add = [&](const T* chains) {
    for (size_t k = 0; k < kSums; ++k) {
      for (int64_t j = 0; j < n; ++j) total[k][j] += chains[static_cast<int64_t>(k) * n + j];
    }
  };
  context.pool().parallel(row_blocks(rows), [&](int64_t b, int) {
    T* chains = context.shared<T>() + (serial ? 0 : b * size);
    std::fill_n(chains, size, T{0});
    block(b * kRowSumBlock, std::min(rows, (b + 1) * kRowSumBlock), chains);
    if (serial) add(chains);
  });
  if (serial) return;
  for (int64_t b = 0; b < row_blocks(rows); ++b) add(context.shared<T>() + b * size);
}

}  // namespace

ScratchNeed norm_backward_scratch(int num_threads, int64_t rows, int64_t hidden) noexcept {
  const int64_t kept = num_threads == 1 ? 1 : row_blocks(rows);
  return {.shared = static_cast<size_t>(kept * 2 * hidden) * sizeof(float)};
}

template <typename T>
void rms_norm(Context& context, View<const T, 2> x, std::span<const T> weight, double eps, View<T, 2> y,
              std::span<T> rrms, Output output) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents() && static_cast<int64_t>(weight.size()) == x.extent(1));
  assert(rrms.empty() || static_cast<int64_t>(rrms.size()) == x.extent(0));
  const NormTable<T>& t = table<T>();
  const bool stream = output == Output::kLeaves && leaves_cache(y.size());
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.rms_norm(rows_of(x, first, last), weight.data(), static_cast<T>(eps), rows_of(y, first, last),
               rrms.empty() ? nullptr : rrms.data() + first, stream);
  });
}

template <typename T>
void rms_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> weight,
                       std::span<const T> rrms, View<const T, 2> residual, View<T, 2> dx,
                       std::span<T> dweight) noexcept {
  assert(streams(dy) && streams(x) && streams(residual) && streams(dx));
  assert(dy.extents() == x.extents() && dx.extents() == x.extents());
  assert(static_cast<int64_t>(rrms.size()) == x.extent(0));
  const NormTable<T>& t = table<T>();
  const int64_t rows = x.extent(0), n = x.extent(1);
  const auto write = [&](int64_t first, int64_t last, T* chains) {
    t.rms_norm_backward(rows_of(dy, first, last), rows_of(x, first, last), weight.data(), rrms.data() + first,
                        rows_of(residual, first, last), rows_of(dx, first, last), chains);
  };
  if (!dweight.empty()) {
    if (fuses(context, rows, n, 1, sizeof(T))) {
      return sum_while_writing<T, 1>(context, rows, n, {dweight.data()}, write);
    }
    for_stripes(context, n, [&](int64_t first, int64_t last) {  // first: dx may be dy
      t.rms_norm_dweight(columns_of(dy, first, last), columns_of(x, first, last), rrms.data(), dweight.data() + first);
    });
  }
  for_row_ranges(context, rows, n, [&](int64_t first, int64_t last) { write(first, last, nullptr); });
}

template <typename T>
void layer_norm(Context& context, View<const T, 2> x, std::span<const T> gamma, std::span<const T> beta, double eps,
                View<T, 2> y, std::span<T> mean, std::span<T> rstd) noexcept {
  assert(streams(x) && streams(y) && x.extents() == y.extents());
  assert(static_cast<int64_t>(gamma.size()) == x.extent(1) && beta.size() == gamma.size());
  assert(mean.empty() || static_cast<int64_t>(mean.size()) == x.extent(0));
  assert(rstd.empty() || static_cast<int64_t>(rstd.size()) == x.extent(0));
  const NormTable<T>& t = table<T>();
  const Affine<T> affine = {gamma.data(), beta.data()};
  const bool stream = leaves_cache(y.size());
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    t.layer_norm(rows_of(x, first, last), affine, first, static_cast<T>(eps), rows_of(y, first, last),
                 mean.empty() ? nullptr : mean.data() + first, rstd.empty() ? nullptr : rstd.data() + first, stream);
  });
}

template <typename T>
void layer_norm_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> gamma,
                         std::span<const T> mean, std::span<const T> rstd, View<T, 2> dx, std::span<T> dgamma,
                         std::span<T> dbeta) noexcept {
  assert(streams(dy) && streams(x) && streams(dx) && dy.extents() == x.extents() && dx.extents() == x.extents());
  assert(static_cast<int64_t>(mean.size()) == x.extent(0) && rstd.size() == mean.size());
  assert(dgamma.size() == dbeta.size());
  const NormTable<T>& t = table<T>();
  const int64_t rows = x.extent(0), n = x.extent(1);
  const auto write = [&](int64_t first, int64_t last, T* chains) {
    t.layer_norm_backward(rows_of(dy, first, last), rows_of(x, first, last), gamma.data(), mean.data() + first,
                          rstd.data() + first, rows_of(dx, first, last), chains,
                          chains == nullptr ? nullptr : chains + n);
  };
  if (!dgamma.empty()) {
    if (fuses(context, rows, n, 2, sizeof(T))) {
      return sum_while_writing<T, 2>(context, rows, n, {dgamma.data(), dbeta.data()}, write);
    }
    for_stripes(context, n, [&](int64_t first, int64_t last) {  // first: dx may be dy
      t.layer_norm_dweight(columns_of(dy, first, last), columns_of(x, first, last), mean.data(), rstd.data(),
                           dgamma.data() + first, dbeta.data() + first);
    });
  }
  for_row_ranges(context, rows, n, [&](int64_t first, int64_t last) { write(first, last, nullptr); });
}

ScratchNeed layernorm_dropout_scratch(int64_t hidden) noexcept {
  return {.per_worker = static_cast<size_t>(std::max(hidden, kTaskElements))};
}

void fused_layernorm_dropout_residual(Context& context, View<const float, 2> x, std::span<const float> gamma,
                                      std::span<const float> beta, double eps, const DropoutMask& mask,
                                      View<const float, 2> residual, View<float, 2> y) noexcept {
  assert(streams(x) && streams(residual) && streams(y) && x.extents() == y.extents());
  assert(residual.extents() == x.extents() && static_cast<int64_t>(gamma.size()) == x.extent(1));
  assert(beta.size() == gamma.size() && mask.keep_prob > 0 && mask.keep_prob <= 1);
  const NormTable<float>& t = table<float>();
  const Affine<float> affine = {gamma.data(), beta.data()};
  const bool stream = leaves_cache(y.size());
  const auto scale = static_cast<float>(1 / mask.keep_prob);
  const int64_t n = x.extent(1);
  for_row_ranges_of(context, x.extent(0), n, [&](int64_t first, int64_t last, int worker) {
    View<const uint8_t, 2> rows = rows_of(mask.given, first, last);
    if (rows.data() == nullptr) {
      auto* drawn = context.worker<uint8_t>(worker);
      prng_dropout_mask(context, mask.seed, mask.stream, static_cast<uint64_t>(first * n), mask.keep_prob,
                        {drawn, static_cast<size_t>((last - first) * n)});
      rows = View<const uint8_t, 2>(drawn, last - first, n);
    }
    t.layer_norm_dropout(rows_of(x, first, last), affine, static_cast<float>(eps), rows, scale,
                         rows_of(residual, first, last), rows_of(y, first, last), stream);
  });
}

void group_norm(Context& context, View<const float, 3> x, std::span<const float> gamma, std::span<const float> beta,
                int64_t groups, double eps, View<float, 3> y) noexcept {
  assert(x.contiguous() && y.contiguous() && x.extents() == y.extents() && x.extent(1) % groups == 0);
  assert(static_cast<int64_t>(gamma.size()) == x.extent(1) && beta.size() == gamma.size());
  const NormTable<float>& t = table<float>();
  const int64_t rows = x.extent(0) * groups, n = x.extent(1) / groups * x.extent(2);
  const Affine<float> affine = {gamma.data(), beta.data(), groups, x.extent(2)};
  const View<const float, 2> in(x.data(), rows, n);
  const View<float, 2> out(y.data(), rows, n);
  const bool stream = leaves_cache(y.size());
  for_row_ranges(context, rows, n, [&](int64_t first, int64_t last) {
    t.layer_norm(rows_of(in, first, last), affine, first, static_cast<float>(eps), rows_of(out, first, last), nullptr,
                 nullptr, stream);
  });
}

#define GRAFT_INSTANTIATE(T)                                                                                          \
  template void rms_norm<T>(Context&, View<const T, 2>, std::span<const T>, double, View<T, 2>, std::span<T>,         \
                            Output) noexcept;                                                                         \
  template void rms_norm_backward<T>(Context&, View<const T, 2>, View<const T, 2>, std::span<const T>,                \
                                     std::span<const T>, View<const T, 2>, View<T, 2>, std::span<T>) noexcept;        \
  template void layer_norm<T>(Context&, View<const T, 2>, std::span<const T>, std::span<const T>, double, View<T, 2>, \
                              std::span<T>, std::span<T>) noexcept;                                                   \
  template void layer_norm_backward<T>(Context&, View<const T, 2>, View<const T, 2>, std::span<const T>,              \
                                       std::span<const T>, std::span<const T>, View<T, 2>, std::span<T>,              \
                                       std::span<T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

}  // namespace graft
