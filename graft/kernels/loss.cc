#include "graft/kernels/loss.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/elementwise.h"
#include "graft/kernels/loss_table.h"
#include "graft/kernels/math.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

template <typename T>
const LossTable<T>& table() noexcept {
  if constexpr (std::is_same_v<T, float>) {
    if (const LossTable<float>* simd = loss_simd()) return *simd;
  }
  return pick_reference(loss_ref<T>(), loss_fma<T>());
}

float log_of(float x) noexcept { return log_f32(x); }
double log_of(double x) noexcept { return log_f64(x); }
float exp_of(float x) noexcept { return exp_f32(x); }
double exp_of(double x) noexcept { return exp_f64(x); }

// Where the shared scratch is cut: the products' own, then the logits of a chunk, those before DoRA's scaling, then their losses.
struct Layout {
  ScratchNeed products;
  size_t logits = 0, unscaled = 0, nll = 0;  // byte offsets
};

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

Layout layout_of(int num_threads, int64_t hidden, int64_t vocab, int64_t chunk_rows, int64_t rank, size_t element,
                 bool magnitude) {
  Layout l;
  l.products = matmul_scratch(num_threads, chunk_rows, hidden, vocab);
  l.products.merge(matmul_scratch(num_threads, chunk_rows, vocab, hidden));
  if (rank > 0) {
    l.products.merge(matmul_scratch(num_threads, chunk_rows, rank, vocab));
    l.products.merge(matmul_scratch(num_threads, chunk_rows, vocab, rank));
  }
  l.logits = round_up(l.products.shared);
  const size_t logits = round_up(static_cast<size_t>(chunk_rows) * static_cast<size_t>(vocab) * element);
  l.unscaled = l.logits + logits;
  l.nll = l.unscaled + (magnitude ? logits : 0);
  return l;
}

// One row: z holds logits and is overwritten by dz if a gradient is wanted. Returns nll.
template <typename T>
T row_loss(const LossTable<T>& kernels, T* z, int64_t vocab, int32_t label, double weight, double smoothing,
           bool gradient) noexcept {
  const SoftmaxSums<T> s = kernels.softmax_sums(z, vocab);
  const T at_label = z[label];
  const auto on = static_cast<T>(1 - smoothing), each = static_cast<T>(smoothing / static_cast<double>(vocab));
  const T target = smoothing == 0 ? at_label : on * at_label + each * kernels.sum_logits(z, vocab);
  // (maximum - target) first: it is small where the model is right, and rounding logZ would cost its digits.
  const T nll = (s.maximum - target) + log_of(s.sum);
  if (gradient) {
    const T inverse = T{1} / s.sum, w = static_cast<T>(weight);
    kernels.softmax_gradient(z, vocab, s.maximum, inverse, each, w);
    z[label] = w * ((exp_of(at_label - s.maximum) * inverse - each) - on);
  }
  return nll;
}

}  // namespace

template <typename T>
double head_cross_entropy(Context& context, const HeadLossArgs<T>& args) noexcept {
  const int64_t rows = args.x.extent(0), hidden = args.x.extent(1), vocab = args.head.out_features();
  const bool lora = args.lora.h.data() != nullptr;
  const int64_t rank = lora ? args.lora.h.extent(1) : 0;
  const bool dora = !args.magnitude.empty();
  const bool gradient = args.dx.data() != nullptr || args.dhead.data() != nullptr || args.dlora_h.data() != nullptr ||
                        args.dlora_b.data() != nullptr;
  assert(static_cast<int64_t>(args.labels.size()) == rows && static_cast<int64_t>(args.weights.size()) == rows);
  assert(args.nll.empty() || static_cast<int64_t>(args.nll.size()) == rows);
  const Layout layout = layout_of(context.num_threads(), hidden, vocab, args.chunk_rows, rank, sizeof(T), dora);
  assert(context.reserved().shared >= layout.nll + static_cast<size_t>(args.chunk_rows) * sizeof(T));
  auto* bytes = context.shared<std::byte>();
  auto* logits = reinterpret_cast<T*>(bytes + layout.logits);
  auto* unscaled = reinterpret_cast<T*>(bytes + layout.unscaled);
  auto* chunk_nll = reinterpret_cast<T*>(bytes + layout.nll);
  const LossTable<T>& kernels = table<T>();

  double loss = 0;
  for (int64_t first = 0; first < rows; first += args.chunk_rows) {
    const int64_t last = std::min(first + args.chunk_rows, rows), count = last - first;
    const View<const T, 2> x = rows_of(args.x, first, last);
    const View<T, 2> z(logits, count, vocab);
    LoraTerm<T> term;
    if (lora) term = {0, count, rows_of(args.lora.h, first, last), args.lora.b};
    MatmulOutput<T> product;
    product.w = args.head;
    if (lora) product.terms = {&term, 1};
    product.y = z;
    matmul_nt<T>(context, args.compute, x, std::span<const MatmulOutput<T>>(&product, 1));

    if (dora) {
      if (gradient) std::copy_n(z.data(), z.size(), unscaled);
      column_scale<T>(context, View<const T, 2>(logits, count, vocab), args.magnitude, args.norm, {}, z);
    }

    context.pool().parallel(count, [&](int64_t i, int) {
      const auto row = static_cast<size_t>(first + i);
      chunk_nll[i] =
          row_loss(kernels, z.row(i), vocab, args.labels[row], args.weights[row], args.label_smoothing, gradient);
    });
    for (int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<size_t>(first + i);
      loss += args.weights[row] * static_cast<double>(chunk_nll[i]);
      if (!args.nll.empty()) args.nll[row] = chunk_nll[i];
    }
    if (dora && gradient) {
      column_scale_backward<T>(context, View<const T, 2>(logits, count, vocab),
                               View<const T, 2>(unscaled, count, vocab), args.magnitude, args.norm, z, args.dmagnitude,
                               {});
    }
    if (args.dx.data() != nullptr) {
      const MatmulSource<T> source = {z, args.head};
      matmul_nn<T>(context, args.compute, std::span<const MatmulSource<T>>(&source, 1), false,
                   rows_of(args.dx, first, last));
    }
    if (args.dhead.data() != nullptr) matmul_tn<T>(context, z, x, T{1}, true, args.dhead);
    if (args.dlora_h.data() != nullptr) {
      MatmulSource<T> source;
      source.dy = z;
      source.w.rows = args.lora.b;
      matmul_nn<T>(context, args.compute, std::span<const MatmulSource<T>>(&source, 1), false,
                   rows_of(args.dlora_h, first, last));
    }
    if (args.dlora_b.data() != nullptr) {
      matmul_tn<T>(context, z, rows_of(args.lora.h, first, last), T{1}, true, args.dlora_b);
    }
  }
  return loss;
}

ScratchNeed head_cross_entropy_scratch(int num_threads, int64_t hidden, int64_t vocab, int64_t chunk_rows, int64_t rank,
                                       bool magnitude) {
  const Layout l = layout_of(num_threads, hidden, vocab, chunk_rows, rank, sizeof(float), magnitude);
  return {l.nll + round_up(static_cast<size_t>(chunk_rows) * sizeof(float)), l.products.per_worker};
}

template double head_cross_entropy<float>(Context&, const HeadLossArgs<float>&) noexcept;
template double head_cross_entropy<double>(Context&, const HeadLossArgs<double>&) noexcept;

}  // namespace graft
