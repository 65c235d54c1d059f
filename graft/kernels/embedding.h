#pragma once

#include <cstdint>
#include <span>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// y[i] = table[ids[i]], widened. ids in [0, vocab). table [vocab, hidden] packed (a tied head is the same Weight) or
// plain rows.
template <typename T>
void embedding(Context& context, std::span<const int32_t> ids, const Operand<T>& table, View<T, 2> y) noexcept;

// dtable[id] += sum of dy[i] over the i with ids[i] == id, i ascending (stable sort of ids). dtable [vocab, hidden]
// rows. The row of `frozen` gets nothing (PyTorch's padding_idx); -1: every row does.
template <typename T>
void embedding_backward(Context& context, std::span<const int32_t> ids, View<const T, 2> dy, View<T, 2> dtable,
                        int32_t frozen = -1) noexcept;
ScratchNeed embedding_backward_scratch(int num_threads, int64_t tokens);

// y[i] = x[rows[i]] and its transpose dx[rows[i]] = dy[i], every other row of dx 0. rows are distinct and ascending.
template <typename T>
void gather_rows(Context& context, std::span<const int32_t> rows, View<const T, 2> x, View<T, 2> y) noexcept;
template <typename T>
void scatter_rows(Context& context, std::span<const int32_t> rows, View<const T, 2> dy, View<T, 2> dx) noexcept;

}  // namespace graft
