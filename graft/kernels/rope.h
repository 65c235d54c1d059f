#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// How angles are made (spec formats.md 2.4; transformers' modeling_rope_utils). Sizes in tokens.
struct RopeParameters {
  enum class Type { kDefault, kLinear, kDynamic, kNtk, kLlama3, kYarn };
  Type type = Type::kDefault;
  double theta = 10000;
  int64_t head_dim = 0;  // rotary dimensions, even
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4, beta_fast = 32, beta_slow = 1;
  double attention_factor = 0, mscale = 0, mscale_all_dim = 0;  // 0: not given
  bool truncate = true;                                         // YaRN: floor and ceil of the correction range
  int64_t original_max_position_embeddings = 0, max_position_embeddings = 0;
};

// cos and sin of position * inv_freq (times YaRN's attention factor), f32 [length, head_dim / 2] each. inv_freq and
// the angle are f32 as in transformers, cosine and sine of that angle to the last bit but one, by graft's own
// polynomials: the same bits on every CPU.
struct RopeTable {
  std::vector<float> inv_freq, cos, sin;
  double attention_scaling = 1;
  int64_t length = 0, half = 0;
};
// `dynamic` depends on the sequence length: seq_length is the longest sequence (0: length).
RopeTable make_rope_table(const RopeParameters& parameters, int64_t length, int64_t seq_length = 0);

// Rotates each head of x [tokens, heads, head_dim] (strides of token and head free, features contiguous) by its
// token's position.
//   halves (Hugging Face files): y[i] = x[i] c_i - x[i+d/2] s_i;  y[i+d/2] = x[i+d/2] c_i + x[i] s_i
//   interleaved (2i, 2i+1): the same on adjacent pairs
// Arithmetic: y = fma(x1, c, -(x2 * s)) and fma(x2, c, x1 * s). inverse (the backward) rotates by -position. y may be
// x. positions[t] < table length. T double uses the f32 table widened.
template <typename T>
void rope(Context& context, View<const T, 3> x, std::span<const int32_t> positions, const RopeTable& table,
          bool interleaved, bool inverse, View<T, 3> y) noexcept;

}  // namespace graft
