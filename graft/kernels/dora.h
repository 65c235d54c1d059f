#pragma once

#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// norm[o] = || W[o,:] + scaling * B[o,:] A ||_2, rows of the adapted weight (arXiv:2402.09353, PEFT's DoRA).
// a [rank, in], b [out, rank]; nothing of W's size is made: rows are expanded block by block in scratch.
template <typename T>
void dora_norm(Context& context, const Operand<T>& w, View<const T, 2> a, View<const T, 2> b, T scaling,
               std::span<T> norm) noexcept;
ScratchNeed dora_norm_scratch(int num_threads, int64_t in_features, int64_t rank);

// norm[o] = || table[:,o] + scaling * (A B^T)[:,o] ||_2: DoRA of an embedding norms its features over the whole vocabulary, as PEFT does.
// a [vocab, rank] (by token), b [hidden, rank]. Adapted entries as merge_rows makes them; squares summed in f64, tokens ascending.
template <typename T>
void dora_column_norm(Context& context, const Operand<T>& table, View<const T, 2> a, View<const T, 2> b, T scaling,
                      std::span<T> norm) noexcept;
// For T = float; for double (tests) ask for twice as much.
ScratchNeed dora_column_norm_scratch(int64_t hidden, int64_t rank);

// merged[o, :] = (magnitude[o] / norm[o] *) (W[o,:] + scaling * B[o,:] A) for rows [first_row, first_row + num_rows),
// f32: the merge of one tensor, block by block. w_rows [num_rows, in] plain rows, in place allowed; magnitude may be
// empty (plain LoRA).
void merge_rows(Context& context, View<const float, 2> w_rows, View<const float, 2> a, View<const float, 2> b_rows,
                float scaling, std::span<const float> magnitude_rows, View<float, 2> merged) noexcept;

}  // namespace graft
