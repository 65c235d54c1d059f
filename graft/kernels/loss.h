#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// Output head and softmax cross-entropy, fused and chunked over rows: the logits of a whole batch never exist.
//   z = x W^T (+ LoRA terms) [rows, vocab];  logZ = log sum exp z;  nll[i] = logZ - (1 - s) z[label] - s/V sum_v z[v]  (s = smoothing)
//   loss = sum_i weights[i] * nll[i]   (f64, rows ascending; weights hold 1/n, or the row weight over their sum)
//   with a magnitude (DoRA of the head): z is scaled per column by magnitude / norm before the softmax, as kernels/elementwise.h does it
//   dz = weights[i] * (softmax(z) - (1 - s) onehot - s/V);  dx = dz W;  dhead (+)= dz^T x;  LoRA of the head likewise
// Maximum m and sum S of exp(z - m): vocabulary blocks of 4,096, inside a block 64 lanes (v mod 64) and the tree, folded ascending,
// rescaled always. In this order: nll = (m - target) + log S with target = z[label], or (1 - s) z[label] + s/V sum_v z[v] where s != 0;
// dz = weight * (fma(exp(z - m), 1 / S, -s/V) - (1 - s) at the label), weight rounded to T. A NaN logit gives a NaN loss; -infinity
// counts for nothing unless all are. labels in [0, vocab). Rows with weight 0 still get their nll.
template <typename T>
struct HeadLossArgs {
  View<const T, 2> x;                  // [rows, hidden]: only rows that have a label
  Operand<T> head;                     // [vocab, hidden]
  LoraTerm<T> lora;                    // optional (h.data() == nullptr): terms of the head; rows 0 … rows
  std::span<const T> magnitude, norm;  // [vocab]: DoRA of the head; empty without
  std::span<const int32_t> labels;     // [rows]
  std::span<const double> weights;     // [rows]
  double label_smoothing = 0;
  Compute compute = Compute::kF32;
  int64_t chunk_rows = 64;  // rows whose logits are in memory at once; does not change any bit of loss, nll and dx
  std::span<T> nll;         // [rows], written; may be empty
  View<T, 2> dx;            // [rows, hidden], written; null: forward only
  View<T, 2> dhead;         // [vocab, hidden], added to; null if the head is frozen
  View<T, 2> dlora_h;       // [rows, rank], written; null without LoRA on the head
  View<T, 2> dlora_b;       // [vocab, rank], added to
  std::span<T> dmagnitude;  // [vocab], added to
};
template <typename T>
double head_cross_entropy(Context& context, const HeadLossArgs<T>& args) noexcept;  // returns loss
// For T = float; for double (tests) ask for twice the chunk_rows.
ScratchNeed head_cross_entropy_scratch(int num_threads, int64_t hidden, int64_t vocab, int64_t chunk_rows, int64_t rank,
                                       bool magnitude = false);

}  // namespace graft
