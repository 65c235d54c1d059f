#pragma once

#include "graft/base/float16.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// Attention of whole batches, by the kernel that trains and generates (attention.h: online softmax over key blocks, its order of
// arithmetic, no Lq x Lk buffer).
//   o[b, h, i] = sum_j softmax_j(scale q[b, h, i] . k[b, h Hkv / H, j]) v[b, h Hkv / H, j],   lse[b, h, i] = log sum_j e^(scale q . k)
// q, o [B, H, Lq, D], k, v [B, Hkv, Lk, D], lse [B, H, Lq], strides free; Hkv divides H; o and lse overlap no input; lse.data() may be
// null. causal: query i sees key j when j <= i + Lk - Lq (the last query sees all). A row that sees nothing: o = 0, lse = -infinity.
// Error: f32 2e-6 max|v| (1 + scale |q| |k| / 2); from f16 r 2e-3, a 5e-4 of v's root mean square. Scratch: attention_dense_scratch.
// Source: spec/kernels.md, sections 15 and 23.
ScratchNeed attention_dense_scratch(int64_t num_heads, int64_t num_kv_heads, int64_t num_queries, int64_t num_keys,
                                    int64_t head_dim);

void attention_sdpa(Context& context, View<const float, 4> q, View<const float, 4> k, View<const float, 4> v,
                    bool causal, double scale, View<float, 4> o, View<float, 3> lse) noexcept;
// From f16, widened as it is read; f32 arithmetic and result.
void attention_flash(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                     double scale, View<float, 4> o, View<float, 3> lse) noexcept;
// attention_flash where all heads share one key and value head (Hkv = 1), or each H / Hkv of them.
void attention_mqa(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                   double scale, View<float, 4> o, View<float, 3> lse) noexcept;
void attention_gqa(Context& context, View<const f16, 4> q, View<const f16, 4> k, View<const f16, 4> v, bool causal,
                   double scale, View<float, 4> o, View<float, 3> lse) noexcept;
// One head without a mask: q, o [Lq, D], k, v [Lk, D], lse [Lq] (may be empty).
void fused_attention_softmax_v(Context& context, View<const float, 2> q, View<const float, 2> k, View<const float, 2> v,
                               double scale, View<float, 2> o, std::span<float> lse) noexcept;

// scores[h, i, j] = scale rope(q[h])[i] . rope(k[h])[j] for j <= i, -infinity after: q, k [H, L, D] turned by the half layout of
// rope_apply with cos and sin [L, D / 2]; each dot product is a chain of fused multiply-adds over d ascending from +0. D even;
// contiguous. Error 3e-6 sqrt D. Scratch: fused_rope_attention_mask_scratch.
ScratchNeed fused_rope_attention_mask_scratch(int64_t num_heads, int64_t length, int64_t head_dim);
void fused_rope_attention_mask(Context& context, View<const float, 3> q, View<const float, 3> k,
                               View<const float, 2> cos, View<const float, 2> sin, double scale,
                               View<float, 3> scores) noexcept;

}  // namespace graft
