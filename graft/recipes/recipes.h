#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/float16.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"
#include "graft/kernels/grid.h"
#include "graft/kernels/linalg.h"
#include "graft/kernels/optimizer.h"
#include "graft/kernels/reduce.h"
#include "graft/kernels/signal.h"

namespace graft {

// Pipelines of kernels: one call, one result, the same as the kernels called one by one (spec/kernels.md, section 25). They reserve the
// context's scratch and allocate what lies between steps, and check their arguments (Error). Steps in brackets are no kernels of the suite.

// ---- Columns of data ------------------------------------------------------------------------------------------------

// map_compare (x > threshold; NaN falls out) and compact_mask in one pass, compact_if -> map_log or map_clamp -> reduce_mean -> map_div by the mean.
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

// reduce_mean, reduce_var, reduce_min, reduce_max, reduce_argmin, reduce_argmax in one pass (reduce_moments), then reduce_histogram over
// [min, max]: two reads of x, where the kernels one by one take five.
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

// A table x [R, C], features in columns, NaN where a value is missing. Each column: map_compare (x = x) -> compact_mask -> reduce_mean,
// reduce_var (over N), reduce_min, reduce_max in one pass -> reduce_histogram over [min, max] -> percentile_select. The rows without a gap:
// compact_mask of each column -> reduce_pearson_pairwise.
struct ColumnAnalysis {
  int64_t count = 0;  // of values that are there; where it is 0, every number below is NaN
  float mean = 0, variance = 0, min = 0, max = 0;
  std::array<float, 5> percentiles{};  // 25, 50, 75, 90, 99
  std::vector<uint32_t> histogram;     // empty where the column is constant, infinite somewhere or empty
};
struct DataAnalysis {
  std::vector<ColumnAnalysis> columns;
  int64_t complete = 0;            // rows without a gap
  std::vector<float> correlation;  // [C, C]; NaN beside a constant column and below two complete rows
};
DataAnalysis data_analysis(Context& context, View<const float, 2> x, int64_t bins = 256);

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
// Clip none (reduce_l2 alone), grad_clip_value, or reduce_l2 and grad_clip_norm -> opt_sgd, opt_sgd_momentum, opt_adam or opt_adamw; a
// clip and Adam are one pass, fused_adam_clip_update.
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

// ---- Signals --------------------------------------------------------------------------------------------------------

// window_apply (not for rect) -> fft_real -> spectral_power of an even number of real samples.
struct SpectrumOptions {
  Window window = Window::kHann;
  bool periodic = false;  // the window's form (signal.h)
  double rate =
      0;  // samples a second: the one-sided density in units^2 / Hz, 1 / (rate sum w^2), sum w^2 by map_reduce_square_sum; 0: |X|^2
  int64_t length = 0;  // of the transform: the windowed samples and zeros behind; 0: their number
};
// Bins 0 ... length / 2; bin k is the frequency k rate / length.
std::vector<float> spectral_analysis(Context& context, std::span<const float> x, const SpectrumOptions& options);

// window_apply (not for rect) -> fft_radix2 -> map_mul twice and map_add (the complex product with the response) -> ifft ->
// spectral_power. N samples, a power of two; `response` holds bins 0 ... N/2 as (re, im), the others are their conjugates; bins 0 and N/2
// count as real. The filter is circular.
struct FilteredSignal {
  std::vector<float> signal, power;  // N samples; |Y|^2 of bins 0 ... N/2
};
FilteredSignal signal_filter(Context& context, std::span<const float> x, Window window,
                             std::span<const float> response);

// ---- Simulations ----------------------------------------------------------------------------------------------------

enum class Pde : uint8_t { kHeat, kWave, kStencil2d, kStencil3d };
struct PdeOptions {
  Pde equation = Pde::kHeat;
  double step = 0.1;  // heat: r = alpha dt / dx^2; wave: (c dt / dx)^2; a stencil has its own in the coefficients
  int64_t steps = 1;
  Boundary boundary = Boundary::kFixed;
  std::span<const int32_t> offsets;  // of a stencil: [m, 2 or 3], -4096 to 4096
  std::span<const float> coeffs;     // [m]
};
struct PdeResult {
  std::vector<float> u, previous;  // the field after the steps; the one before it (wave)
  std::string
      warning;  // where the step is unstable: heat r > 1/4, wave (c dt / dx)^2 > 1/2, a stencil that lets a wave grow
};
// sim_heat_equation, sim_wave_equation or sim_stencil_2d / 3d x steps of u [D, H, W], D = 1 in two dimensions. `previous`: the wave's
// field one step before; empty: at rest.
PdeResult pde_solver(Context& context, const PdeOptions& options, View<const float, 3> u,
                     std::span<const float> previous = {});

// Bodies under gravity: positions, velocities and accelerations are [n, 3]. Sums in f64, over the bodies ascending.
// Two bodies in one place need a softening.
struct Gravity {
  double constant = 1, softening = 0;
};
// acc_i = constant sum_j m_j (r_j - r_i) / (|r_j - r_i|^2 + softening^2)^(3/2)
void gravity(Context& context, const Gravity& law, std::span<const float> mass, std::span<const float> pos,
             std::span<float> acc);
// sum_i m_i v_i^2 / 2 - constant sum_(j < i) m_i m_j / sqrt(|r_i - r_j|^2 + softening^2)
double gravity_energy(const Gravity& law, std::span<const float> mass, std::span<const float> pos,
                      std::span<const float> vel);
struct EnergyDrift {
  double before = 0, after = 0, drift = 0;  // drift: (after - before) / |before|, or the difference where `before` is 0
};
// Velocity Verlet, `steps` times, in place: (gravity) -> integrate_verlet without springs moves the bodies and gives vel its first half
// -> (gravity) -> integrate_verlet gives it the second.
EnergyDrift n_body(Context& context, const Gravity& law, std::span<const float> mass, double dt, int64_t steps,
                   std::span<float> pos, std::span<float> vel);

// ---- Retrieval ------------------------------------------------------------------------------------------------------

struct Recommendation {
  std::vector<int32_t> items;  // [asked, k], best first; of equal scores the first of the candidates
  std::vector<float> scores;   // over the largest magnitude among the user's k, so in [-1, 1]
};
// (rows `asked` of users [U, D]) -> scores u.i with items [I, D]: a product by matmul_batched with all of them, or dot_batched with the
// `candidates` -> topk_select per user -> map_div.
Recommendation recommendation(Context& context, View<const float, 2> users, View<const float, 2> items,
                              std::span<const int32_t> asked, std::span<const int32_t> candidates, int64_t k);

// Vectors as i8 with a scale each: quantize_f16_to_i8 of [rows, dim], at most 2^24 rows.
struct VectorIndex {
  int64_t rows = 0, dim = 0;
  std::vector<int8_t> values;
  std::vector<float> scale;
};
VectorIndex vector_index(Context& context, View<const f16, 2> vectors);
struct Neighbours {
  std::vector<int32_t> ids;  // best first; of equal scores the lowest
  std::vector<float> scores;
  int64_t candidates = 0;  // rows that the bound let through
};
// The k rows of largest dot product with the query, or all where there are fewer; rows with NaN or infinity are left out. A bound from each
// row's scale, 127 scale sum |query|: topk_select of the bounds -> the k-th score of the 16 k best bounded rows is the floor -> map_compare ->
// compact_mask -> dequantize_i8_to_f16 -> dot_batched -> topk_select. The bound leaves out nothing: the same result as scoring every row.
Neighbours vector_search(Context& context, const VectorIndex& index, std::span<const float> query, int64_t k);

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

// What the pass that a recipe joins is worth at a size: bytes as the specification counts them, and the time of one call, measured now;
// joined and as the kernels one by one.
struct RecipeSaving {
  std::string_view kernels;  // that are joined
  double bytes = 0, bytes_apart = 0, ns = 0, ns_apart = 0;
};
// Nothing for the recipes whose kernels all run one by one.
std::optional<RecipeSaving> recipe_saving(Context& context, std::string_view recipe, int64_t size, uint64_t seed);

}  // namespace graft
