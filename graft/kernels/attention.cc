#include "graft/kernels/attention.h"

#include <algorithm>

#include "graft/kernels/attention_table.h"
#include "graft/kernels/ref.h"

namespace graft {

namespace {

const AttentionForwards& forwards() noexcept {
  if (const AttentionForwards* simd = attention_simd()) return *simd;
  return pick_reference(attention_reference(), attention_fma()).forward;
}

}  // namespace

template <>
void attention(Context& context, const AttentionArgs<float>& args) noexcept {
  forwards().stored_f32(context, args);
}
template <>
void attention(Context& context, const AttentionArgs<float, f16>& args) noexcept {
  forwards().stored_f16(context, args);
}
template <>
void attention_backward<float>(Context& context, const AttentionBackwardArgs<float>& args) noexcept {
  const AttentionBackward simd = attention_backward_simd();
  (simd != nullptr ? simd : pick_reference(attention_reference(), attention_fma()).backward)(context, args);
}

// Copies only, so one version serves all: per block and head the 64 columns of a feature are written one after the
// other.
template <typename T>
void append_to_cache(Context& context, View<const T, 3> k, View<const T, 3> v, int64_t position_begin, T* k_blocks,
                     T* v_rows) noexcept {
  const int64_t rows = k.extent(0), kv_heads = k.extent(1), d = k.extent(2);
  if (rows == 0) return;
  const int64_t first_block = position_begin / kKeyBlock, last_block = (position_begin + rows - 1) / kKeyBlock;
  const auto copy_block = [&](int64_t block, int64_t head) {
    const int64_t begin = std::max(position_begin, block * kKeyBlock),
                  end = std::min(position_begin + rows, (block + 1) * kKeyBlock);
    T* columns = k_blocks + (block * kv_heads + head) * d * kKeyBlock - block * kKeyBlock;
    const T* from = k.data() + head * k.stride(1) - position_begin * k.stride(0);
    for (int64_t e = 0; e < d; ++e) {
      for (int64_t p = begin; p < end; ++p) columns[e * kKeyBlock + p] = from[p * k.stride(0) + e * k.stride(2)];
    }
    for (int64_t p = begin; p < end; ++p) {
      const T* value = v.data() + (p - position_begin) * v.stride(0) + head * v.stride(1);
      T* to = v_rows + (p * kv_heads + head) * d;
      for (int64_t e = 0; e < d; ++e) to[e] = value[e * v.stride(2)];
    }
  };
  const int64_t blocks = last_block - first_block + 1;
  if (rows < 8) {  // decoding: waking the other threads would cost more than the copy
    for (int64_t i = 0; i < blocks * kv_heads; ++i) copy_block(first_block + i / kv_heads, i % kv_heads);
    return;
  }
  context.pool().parallel(blocks * kv_heads,
                          [&](int64_t i, int) { copy_block(first_block + i / kv_heads, i % kv_heads); });
}
template void append_to_cache(Context&, View<const float, 3>, View<const float, 3>, int64_t, float*, float*) noexcept;
template void append_to_cache(Context&, View<const double, 3>, View<const double, 3>, int64_t, double*,
                              double*) noexcept;

}  // namespace graft
