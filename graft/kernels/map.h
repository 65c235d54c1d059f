#pragma once

#include <cstdint>
#include <span>

#include "graft/kernels/context.h"

namespace graft {

// Elementwise maps of f32. All spans of a call have one length; y may be an input; any alignment. NaN in gives NaN out, subnormals are
// kept, any number of threads and every variant gives the same bits. Errors are stated against f64: relative r, absolute a.
// Source: spec/kernels.md, sections 3 to 5.

void map_exp(Context& context, std::span<const float> x,
             std::span<float> y) noexcept;  // e^x, r 1e-6; above 88.7228: inf
void map_log(Context& context, std::span<const float> x,
             std::span<float> y) noexcept;  // ln x, r 1e-6 a 1.2e-7; 0: -inf, below: NaN
void map_sigmoid(Context& context, std::span<const float> x, std::span<float> y) noexcept;  // 1 / (1 + e^-x), r 1e-6
void map_tanh(Context& context, std::span<const float> x, std::span<float> y) noexcept;     // r 1e-6 a 1.2e-7
void map_softplus(Context& context, std::span<const float> x,
                  std::span<float> y) noexcept;  // ln(1 + e^x), r 1e-6 a 1e-7
void map_clamp(Context& context, std::span<const float> x, float low, float high,
               std::span<float> y) noexcept;                                            // exact
void map_abs(Context& context, std::span<const float> x, std::span<float> y) noexcept;  // exact

void map_relu(Context& context, std::span<const float> x, std::span<float> y) noexcept;  // max(x, 0), exact
void map_leaky_relu(Context& context, std::span<const float> x, float alpha,
                    std::span<float> y) noexcept;  // x > 0 ? x : alpha x
void map_elu(Context& context, std::span<const float> x, float alpha,
             std::span<float> y) noexcept;  // x > 0 ? x : alpha (e^x - 1)
enum class GeluForm : uint8_t {
  kTanh,  // x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
  kErf,   // x erfc(-x / sqrt 2) / 2
};
void map_gelu(Context& context, std::span<const float> x, GeluForm form, std::span<float> y) noexcept;  // r 2e-6 a 6e-7
void map_silu(Context& context, std::span<const float> x, std::span<float> y) noexcept;  // x sigmoid(x), r 2e-6
void map_mish(Context& context, std::span<const float> x,
              std::span<float> y) noexcept;  // x tanh(softplus x), r 2e-6 a 2e-7

void map_add(Context& context, std::span<const float> a, std::span<const float> b,
             std::span<float> y) noexcept;  // a + b, IEEE
void map_mul(Context& context, std::span<const float> a, std::span<const float> b,
             std::span<float> y) noexcept;  // a b, IEEE
void map_div(Context& context, std::span<const float> a, std::span<const float> b,
             std::span<float> y) noexcept;  // a / b, IEEE
// a b + c in one rounding.
void map_fma(Context& context, std::span<const float> a, std::span<const float> b, std::span<const float> c,
             std::span<float> y) noexcept;
enum class Comparison : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe };
// mask = a op b as 0 or 1; false where either is NaN, but for kNe.
void map_compare(Context& context, std::span<const float> a, std::span<const float> b, Comparison op,
                 std::span<uint8_t> mask) noexcept;

}  // namespace graft
