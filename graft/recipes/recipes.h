#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/linalg.h"
#include "graft/kernels/optimizer.h"
#include "graft/kernels/reduce.h"

namespace graft {

// Pipelines of kernels: one call, one result, the same as the kernels called one by one (spec/kernels.md, section 25). They reserve the
// context's scratch and allocate what lies between steps, and check their arguments (Error). Steps in brackets are no kernels of the suite.

// ---- Columns of data ------------------------------------------------------------------------------------------------

// map_compare (x > threshold; NaN falls out) -> compact_mask -> map_log or map_clamp -> reduce_mean -> map_div by the mean.
struct EtlOptions {
  float threshold = 0;
  bool log = true;  // else clamp to [low, high]
  float low = 0, high = 1;
};
struct EtlResult {
  std::vector<float> values;
  int64_t dropped = 0;
  float mean = 0;  // of the transformed values, before they were divided by it; NaN where none is left
};
EtlResult etl(Context& context, std::span<const float> x, const EtlOptions& options);

// reduce_mean, reduce_var, reduce_min, reduce_max, reduce_argmin, reduce_argmax; reduce_histogram over [min, max].
struct Statistics {
  float mean = 0, variance = 0;
  ArgValue min{}, max{};
  std::vector<uint32_t> histogram;  // empty where x is constant or holds NaN or infinity
};
Statistics describe_stats(Context& context, std::span<const float> x, int64_t bins = 256);

// reduce_mean of each column -> reduce_covariance_matrix.
struct PcaInput {
  std::vector<float> mean, covariance;  // [C], [C, C]
};
PcaInput pca_prep(Context& context, View<const float, 2> x);

// Uniform in [a, b): prng_uniform_f32 -> map_fma. Normal with mean a and deviation b: prng_normal_f32 -> map_fma. Bernoulli with
// probability a of 1: prng_dropout_mask. A value depends on (seed, stream, its index) alone.
enum class InitKind : uint8_t { kUniform, kNormal, kBernoulli };
std::vector<float> random_init(Context& context, InitKind kind, double a, double b, uint64_t seed, uint64_t stream,
                               int64_t size);

// ---- Models ---------------------------------------------------------------------------------------------------------

// A decoder layer's weights, row-major [in, out]: q, o [hidden, hidden], k, v [hidden, kv_heads D], gate and up [hidden, inner], down
// [inner, hidden], D = hidden / heads. `gate` may be empty: then silu is of `up` alone.
struct BlockWeights {
  int64_t hidden = 0, heads = 0, kv_heads = 0, inner = 0;
  double eps = 1e-6;
  std::span<const float> attention_norm, q, k, v, o, mlp_norm, gate, up, down;
};
// rms_norm -> (q, k, v products) -> attention_sdpa below 2048 rows, attention_flash from there on, causal -> (o product) -> map_add ->
// rms_norm -> (gate and up products) -> map_silu, map_mul -> (down product) -> map_add. x [rows, hidden]; products by matmul_batched.
std::vector<float> transformer_block(Context& context, const BlockWeights& weights, View<const float, 2> x);
// (rows of `embedding` [vocabulary, hidden]) -> the same layer by attention_flash at any length, without a gate.
std::vector<float> ml_inference(Context& context, const BlockWeights& weights, View<const float, 2> embedding,
                                std::span<const int32_t> tokens);
// For each step: group_norm of x [C, L] -> attention_flash among the L positions -> map_silu -> (times -schedule[step]) -> map_add.
std::vector<float> diffusion(Context& context, View<const float, 2> x, int64_t groups, std::span<const float> schedule);

// ---- Training -------------------------------------------------------------------------------------------------------

enum class Clip : uint8_t { kNone, kValue, kNorm };
enum class Optimizer : uint8_t { kSgd, kMomentum, kAdam, kAdamW };
struct TrainingOptions {
  Clip clip = Clip::kNorm;
  double clip_at = 1, momentum = 0.9;
  Optimizer optimizer = Optimizer::kAdamW;
  AdamWStep step;  // its lr serves all
};
struct TrainingState {
  std::span<float> param, m, v;  // v: Adam's; m: Adam's or the velocity; empty where not used
};
// Clip none (reduce_l2 alone), grad_clip_value, or reduce_l2 and grad_clip_norm -> opt_sgd, opt_sgd_momentum, opt_adam or opt_adamw.
// Returns the norm of the gradient before the clip.
float training_step(Context& context, const TrainingOptions& options, std::span<const float> grad,
                    const TrainingState& state);

// ---- Scientific computing -------------------------------------------------------------------------------------------

struct Solution {
  std::vector<float> x;
  float residual = 0;  // |b - A x|, as iterated
  int64_t iterations = 0;
};
// Conjugate gradients for a symmetric positive definite A: spmv_csr -> dot_batched, map_fma -> reduce_l2 until it is below
// tolerance |b| or `most` iterations are done.
Solution conjugate_gradient(Context& context, const CsrMatrix& a, std::span<const float> b, double tolerance,
                            int64_t most);
// The minimum of x A x / 2 - b x: (gradient A x - b) -> dot_batched, map_fma with the exact step -> reduce_l2.
Solution gradient_descent(Context& context, const CsrMatrix& a, std::span<const float> b, double tolerance,
                          int64_t most);
struct Eigenpairs {
  std::vector<float> values, vectors;  // [count] falling, [count, n]
};
// The largest eigenvalues of a symmetric A by `steps` of Lanczos with full reorthogonalisation (spmv_csr, dot_batched, map_fma), (Jacobi
// rotations of the tridiagonal matrix) -> matvec.
Eigenpairs lanczos(Context& context, const CsrMatrix& a, int64_t steps, int64_t count, uint64_t seed);

// ---- All of them, on examples ---------------------------------------------------------------------------------------

// A named part of a recipe's result: numbers, or many of them.
struct RecipeValue {
  std::string_view name;
  std::vector<double> values;
};
struct RecipeInfo {
  std::string_view name, steps;
  int64_t size;  // of the example, in elements of the main input
  std::vector<RecipeValue> (*run)(Context& context, int64_t size, uint64_t seed);
};
std::span<const RecipeInfo> recipes();
const RecipeInfo* find_recipe(std::string_view name);  // null if there is none

}  // namespace graft
