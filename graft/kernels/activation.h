#pragma once

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// SwiGLU (arXiv:2002.05202): y = silu(gate) * up, silu(z) = z / (1 + exp(-z)). All [rows, features]; y may be gate or up.
template <typename T>
void swiglu(Context& context, View<const T, 2> gate, View<const T, 2> up, View<T, 2> y) noexcept;

// dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s, with s = 1 / (1 + exp(-gate)). dgate and dup may be gate, up or dy.
template <typename T>
void swiglu_backward(Context& context, View<const T, 2> dy, View<const T, 2> gate, View<const T, 2> up,
                     View<T, 2> dgate, View<T, 2> dup) noexcept;

}  // namespace graft
