#include "graft/kernels/moe_route.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "graft/kernels/elementwise.h"
#include "graft/kernels/loss_table.h"
#include "graft/kernels/math.h"
#include "graft/kernels/moe_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const MoeRefTable<T>& table() noexcept {
  return pick_reference(moe_ref<T>(), moe_fma<T>());
}
template <typename T>
const MoeTable<T>& row_table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const MoeTable<float>* simd = moe_simd()) return *simd;
  }
  return table<T>().rows;
}
template <typename T>
const LossTable<T>& softmax_table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const LossTable<float>* simd = loss_simd()) return *simd;
  }
  return pick_reference(loss_ref<T>(), loss_fma<T>());
}

float log_of(float x) noexcept { return log_f32(x); }
double log_of(double x) noexcept { return log_f64(x); }
float sigmoid(float z) noexcept { return 1.0f / (1.0f + exp_f32(-z)); }
double sigmoid(double z) noexcept { return 1.0 / (1.0 + exp_f64(-z)); }

// p = softmax(p) in place; returns log sum exp of what was there.
template <typename T>
T softmax_row(const LossTable<T>& kernels, T* p, int64_t n) noexcept {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  SoftmaxSums<T> s = kernels.softmax_sums(p, n);
  const T lse = s.maximum + log_of(s.sum);
  if (s.maximum == kInf || s.maximum == -kInf) {  // what is infinite shares evenly, and is all there is
    for (int64_t e = 0; e < n; ++e) p[e] = p[e] == s.maximum ? T{0} : -kInf;
    const T maximum = s.maximum;
    s = kernels.softmax_sums(p, n);
    kernels.softmax_gradient(p, n, s.maximum, T{1} / s.sum, T{0}, T{1});
    return maximum;
  }
  kernels.softmax_gradient(p, n, s.maximum, T{1} / s.sum, T{0}, T{1});
  return lse;
}

// Counting sort; the offsets serve as cursors. Serial: a token's share is some nanoseconds beside the experts' microseconds.
template <typename T>
void sort_by_expert(const RouteArgs<T>& args) noexcept {
  const std::span<int32_t> offsets = args.offsets;
  const size_t experts = offsets.size() - 1;
  const int64_t assignments = args.experts.size();
  const int32_t* chosen = args.experts.data();
  std::fill(offsets.begin(), offsets.end(), 0);
  for (int64_t a = 0; a < assignments; ++a) ++offsets[static_cast<size_t>(chosen[a]) + 1];
  for (size_t e = 0; e < experts; ++e) offsets[e + 1] += offsets[e];
  for (int64_t a = 0; a < assignments; ++a) {
    args.rows[static_cast<size_t>(offsets[static_cast<size_t>(chosen[a])]++)] = static_cast<int32_t>(a);
  }
  for (size_t e = experts; e > 0; --e) offsets[e] = offsets[e - 1];  // each is the next one's begin by now
  offsets[0] = 0;
  const auto all = static_cast<double>(std::max<int64_t>(1, assignments));
  for (size_t e = 0; e < experts; ++e) {
    args.statistics[experts + 2 + e] = static_cast<T>(static_cast<double>(offsets[e + 1] - offsets[e]) / all);
  }
  args.statistics[experts + 1] = T{0};
  if (args.capacity <= 0) return;
  int32_t kept = 0, begin = 0;
  for (size_t e = 0; e < experts; ++e) {
    const int32_t end = offsets[e + 1];
    const auto count = static_cast<int32_t>(std::min<int64_t>(end - begin, args.capacity));
    for (int32_t i = 0; i < count; ++i) {
      args.rows[static_cast<size_t>(kept + i)] = args.rows[static_cast<size_t>(begin + i)];
    }
    kept += count, begin = end;
    offsets[e + 1] = kept;
  }
  args.statistics[experts + 1] = static_cast<T>(1 - static_cast<double>(kept) / all);
}

}  // namespace

template <typename T>
void route(Context& context, const RouteArgs<T>& args) noexcept {
  const int64_t tokens = args.logits.extent(0), experts = args.logits.extent(1);
  assert(args.top_k >= 1 && args.top_k <= experts && args.weights.contiguous() && args.experts.contiguous());
  assert(static_cast<int64_t>(args.offsets.size()) == experts + 1 && streams(args.logits));
  const LossTable<T>& softmax = softmax_table<T>();
  const MoeRefTable<T>& t = table<T>();
  for_row_ranges(context, tokens, experts, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      T* p = args.probabilities.row(i);
      std::copy_n(args.logits.row(i), experts, p);
      args.lse[static_cast<size_t>(i)] = softmax_row(softmax, p, experts);
      t.choose(p, experts, args.top_k, args.renormalize, args.experts.row(i), args.weights.row(i));
    }
  });
  sort_by_expert(args);
  const std::span<T> means = args.statistics.first(static_cast<size_t>(experts));
  std::fill(means.begin(), means.end(), T{0});
  sum_rows<T>(context, args.probabilities, means);
  const T share = tokens == 0 ? T{0} : T{1} / static_cast<T>(tokens);
  for (T& mean : means) mean *= share;
  double squares = 0;
  for (const T lse : args.lse) squares += static_cast<double>(lse) * static_cast<double>(lse);
  args.statistics[static_cast<size_t>(experts)] =
      static_cast<T>(tokens == 0 ? 0.0 : squares / static_cast<double>(tokens));
}

template <typename T>
void route_backward(Context& context, const RouteBackwardArgs<T>& args) noexcept {
  const int64_t tokens = args.probabilities.extent(0), experts = args.probabilities.extent(1);
  const int64_t top_k = args.weights.extent(1);
  const MoeRefTable<T>& t = table<T>();
  const bool statistics = !args.dstatistics.empty();
  const T count = static_cast<T>(tokens);
  for_row_ranges(context, tokens, experts, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      T* dz = args.dlogits.row(i);
      for (int64_t e = 0; e < experts; ++e)
        dz[e] = statistics ? args.dstatistics[static_cast<size_t>(e)] / count : T{0};
      const T z_scale =
          statistics ? T{2} * args.dstatistics[static_cast<size_t>(experts)] / count * args.lse[static_cast<size_t>(i)]
                     : T{0};
      t.route_backward(args.probabilities.row(i), experts, top_k, args.renormalize, args.experts.row(i),
                       args.weights.row(i), args.dweights.data() == nullptr ? nullptr : args.dweights.row(i), z_scale,
                       dz);
    }
  });
}

template <typename T>
void row_gate(Context& context, View<const T, 2> x, std::span<const T> z, View<const T, 2> residual,
              View<T, 2> y) noexcept {
  const MoeTable<T>& t = row_table<T>();
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      t.scale(x.row(i), sigmoid(z[static_cast<size_t>(i)]), residual.data() == nullptr ? nullptr : residual.row(i),
              y.row(i), x.extent(1));
    }
  });
}

template <typename T>
void row_gate_backward(Context& context, View<const T, 2> dy, View<const T, 2> x, std::span<const T> z, View<T, 2> dx,
                       std::span<T> dz) noexcept {
  const MoeTable<T>& t = row_table<T>();
  for_row_ranges(context, x.extent(0), x.extent(1), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const T s = sigmoid(z[static_cast<size_t>(i)]);
      dz[static_cast<size_t>(i)] = s * (T{1} - s) * t.dot(dy.row(i), x.row(i), x.extent(1));
      t.scale(dy.row(i), s, nullptr, dx.row(i), x.extent(1));
    }
  });
}

#define GRAFT_INSTANTIATE(T)                                                                                        \
  template void row_gate<T>(Context&, View<const T, 2>, std::span<const T>, View<const T, 2>, View<T, 2>) noexcept; \
  template void row_gate_backward<T>(Context&, View<const T, 2>, View<const T, 2>, std::span<const T>, View<T, 2>,  \
                                     std::span<T>) noexcept;
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE

template void route<float>(Context&, const RouteArgs<float>&) noexcept;
template void route<double>(Context&, const RouteArgs<double>&) noexcept;
template void route_backward<float>(Context&, const RouteBackwardArgs<float>&) noexcept;
template void route_backward<double>(Context&, const RouteBackwardArgs<double>&) noexcept;

}  // namespace graft
