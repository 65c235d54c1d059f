#pragma once

#include <cstdint>

#include "graft/kernels/moe_gemm.h"

namespace graft {

// What moe_gemm.cc and moe_route.cc run on rows.
template <typename T>
struct MoeTable {
  // y[assignments[i] / top_k] = fma(weight, c[i], itself), n columns; weight = weights[assignments[i]], or 1.
  void (*scatter)(const T* c, int64_t c_stride, int64_t rows, const int32_t* assignments, int64_t top_k,
                  const T* weights, T* y, int64_t y_stride, int64_t n) noexcept;
  T (*dot)(const T* a, const T* b, int64_t n) noexcept;  // 64 lanes
  // y = fma(x, s, residual), or x * s where that is null.
  void (*scale)(const T* x, T s, const T* residual, T* y, int64_t n) noexcept;
};

// Scalar only: what is small beside the products, and the products' meaning.
template <typename T>
struct MoeRefTable {
  MoeTable<T> rows;
  void (*choose)(const T* p, int64_t n, int64_t top_k, bool renormalize, int32_t* experts, T* weights) noexcept;
  // dz holds dp's constant part on entry; z_scale = (2 / tokens) ds[experts] lse.
  void (*route_backward)(const T* p, int64_t n, int64_t top_k, bool renormalize, const int32_t* experts,
                         const T* weights, const T* dweights, T z_scale, T* dz) noexcept;
  // Columns [begin, end), at most 64, of y, for all experts.
  void (*product)(const ExpertRows& rows, const ExpertProduct<T>& product, int64_t begin, int64_t end) noexcept;
  void (*gradient)(const ExpertRows& rows, const ExpertGradient<T>& gradient, int64_t begin, int64_t end) noexcept;
};
template <typename T>
const MoeRefTable<T>& moe_ref() noexcept;
template <typename T>
const MoeRefTable<T>& moe_fma() noexcept;
const MoeTable<float>* moe_simd() noexcept;  // null: run the reference

// The blocked drivers (moe_blocks.cc). False: nothing was done.
bool blocked_products(Context& context, const ExpertRows& rows,
                      std::span<const ExpertProduct<float>> products) noexcept;
bool blocked_gradients(Context& context, const ExpertRows& rows,
                       std::span<const ExpertGradient<float>> gradients) noexcept;

}  // namespace graft
