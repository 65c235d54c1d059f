// The rows of attention and positions (attention_dense.h, positions.h) in the registry.

#include <cmath>
#include <span>

#include "graft/kernels/attention_dense.h"
#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/positions.h"

namespace graft {
namespace {

// ---- attention ------------------------------------------------------------------------------------------------------

struct AttentionShape {
  int64_t batch, heads, kv_heads, queries, keys, head_dim;
};
AttentionShape shape_of(const KernelCall& call) {
  const auto &q = call.in_shape("q"), &k = call.in_shape("k");
  return {q[0], q[1], k[1], q[2], k[2], q[3]};
}

// Whether "q", "k" and "v" of a call are an attention's; Error if not.
template <typename S>
void check_attention(const KernelCall& call) {
  call.in_view<S, 4>("q");
  call.in_view<S, 4>("k");
  call.in_view<S, 4>("v");
  same_shape(call, "k", "v");
  const AttentionShape s = shape_of(call);
  const auto &q = call.in_shape("q"), &k = call.in_shape("k");
  GRAFT_CHECK(k[0] == s.batch && k[3] == s.head_dim,
              "inputs 'q' [{}] and 'k' [{}] must have one batch and one number of features", fmt::join(q, ", "),
              fmt::join(k, ", "));
  GRAFT_CHECK(s.kv_heads > 0 && s.heads % s.kv_heads == 0, "{} query heads over {} key heads, expected a multiple",
              s.heads, s.kv_heads);
  GRAFT_CHECK(s.head_dim > 0, "input 'q' has no features");
  const double scale = call.real("scale", 1);
  GRAFT_CHECK(std::isfinite(scale), "parameter 'scale' is {}, expected a finite number", scale);
  call.flag("causal", false);
}

double scale_of(const KernelCall& call) {
  return call.real("scale", 1 / std::sqrt(static_cast<double>(call.in_shape("q").back())));
}

enum class Heads { kAny, kEqual, kOne };  // of keys and values, to those of queries

template <typename S, Heads kHeads>
ScratchNeed prepare_attention(KernelCall& call) {
  check_attention<S>(call);
  const AttentionShape s = shape_of(call);
  if (kHeads == Heads::kEqual) {
    GRAFT_CHECK(s.heads == s.kv_heads, "{} query heads over {} key heads, expected as many", s.heads, s.kv_heads);
  } else if (kHeads == Heads::kOne) {
    GRAFT_CHECK(s.kv_heads == 1, "{} key heads, expected one", s.kv_heads);
  }
  call.make("o", DType::kF32, call.in_shape("q"));
  call.make("lse", DType::kF32, {s.batch, s.heads, s.queries});
  return attention_dense_scratch(s.heads, s.kv_heads, s.queries, s.keys, s.head_dim);
}

ScratchNeed prepare_one_head(KernelCall& call) {
  const ScratchNeed need = prepare_attention<float, Heads::kEqual>(call);
  const AttentionShape s = shape_of(call);
  GRAFT_CHECK(s.batch == 1 && s.heads == 1, "input 'q' has batch {} and {} heads, expected one of each", s.batch,
              s.heads);
  GRAFT_CHECK(!call.flag("causal", false), "parameter 'causal' is true, expected false: this kernel has no mask");
  return need;
}

template <typename T>
View<T, 4> output_view(std::span<T> x, const AttentionShape& s) {
  return View<T, 4>(x.data(), s.batch, s.heads, s.queries, s.head_dim);
}

template <typename S>
using Attention = void (*)(Context&, View<const S, 4>, View<const S, 4>, View<const S, 4>, bool, double, View<float, 4>,
                           View<float, 3>) noexcept;
template <typename S, Attention<S> kKernel>
void run_attention(Context& context, KernelCall& call) {
  const AttentionShape s = shape_of(call);
  kKernel(context, call.in_view<S, 4>("q"), call.in_view<S, 4>("k"), call.in_view<S, 4>("v"),
          call.flag("causal", false), scale_of(call), output_view(call.out<float>("o"), s),
          View<float, 3>(call.out<float>("lse").data(), s.batch, s.heads, s.queries));
}

void run_one_head(Context& context, KernelCall& call) {
  const AttentionShape s = shape_of(call);
  const auto in = [&](std::string_view name, int64_t rows) {
    return View<const float, 2>(call.in<float>(name).data(), rows, s.head_dim);
  };
  fused_attention_softmax_v(context, in("q", s.queries), in("k", s.keys), in("v", s.keys), scale_of(call),
                            View<float, 2>(call.out<float>("o").data(), s.queries, s.head_dim), call.out<float>("lse"));
}

// Queries and outputs once, keys and values once.
template <int kBytes>
double attention_bytes(const KernelCall& call) {
  return kBytes * 2 * (length_of(call, "q") + length_of(call, "k"));
}
// 4 B H Lq Lk D, half of it if causal, and an exponential for each score.
double attention_flops(const KernelCall& call) {
  const AttentionShape s = shape_of(call);
  const double scores = static_cast<double>(s.batch * s.heads) * static_cast<double>(s.queries * s.keys);
  const double seen = call.flag("causal", false) ? 0.5 : 1;
  return seen * scores * (4 * static_cast<double>(s.head_dim) + kTranscendental);
}

void add_half(KernelCall& call, std::string_view name, std::vector<int64_t> shape, uint64_t seed) {
  KernelCall wide;
  const std::span<const float> x = add_uniform(wide, name, shape, seed);
  KernelTensor& t = call.add_input(name, DType::kF16, std::move(shape));
  for (size_t i = 0; i < x.size(); ++i) t.data.as<f16>()[i] = to_f16(x[i]);
}

template <bool kHalf>
void add_qkv(KernelCall& call, const AttentionShape& s, uint64_t seed) {
  const auto add = [&](std::string_view name, std::vector<int64_t> shape) {
    if constexpr (kHalf) {
      add_half(call, name, std::move(shape), seed);
    } else {
      add_uniform(call, name, std::move(shape), seed);
    }
  };
  add("q", {s.batch, s.heads, s.queries, s.head_dim});
  add("k", {s.batch, s.kv_heads, s.keys, s.head_dim});
  add("v", {s.batch, s.kv_heads, s.keys, s.head_dim});
}

// Small sizes: odd ones are causal, with more keys than queries or fewer.
template <bool kHalf>
void example_small(KernelCall& call, int64_t size, int64_t kv_heads, uint64_t seed) {
  const int64_t length = std::clamp<int64_t>(size / 64, 1, 200);
  const bool causal = size % 2 == 1;
  add_qkv<kHalf>(call, {1, 4, kv_heads, length, causal ? length + 600 - size % 1000 : length + 5, 16}, seed);
  call.set_parameter("causal", causal ? "true" : "false");
}
template <bool kHalf, int kLength>
void example_attention(KernelCall& call, int64_t size, uint64_t seed) {
  if (size == 1000000) return add_qkv<kHalf>(call, {1, 1, 1, kLength, kLength, 64}, seed);
  if (size == 10000000) return add_qkv<kHalf>(call, {4, 32, 32, kLength, kLength, 128}, seed);
  example_small<kHalf>(call, size, 4, seed);
}
// The specification has one shape for these.
template <int kHeads>
void example_grouped(KernelCall& call, int64_t size, uint64_t seed) {
  if (size == 1000000 || size == 10000000) return add_qkv<true>(call, {4, 32, kHeads, 512, 512, 128}, seed);
  example_small<true>(call, size, kHeads == 1 ? 1 : 2, seed);
}
void example_one_head(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t d = size < 10000 ? 16 : 64;
  const int64_t length = std::clamp<int64_t>(size == 1000000 ? 512 : size / d, 1, 2048);
  add_qkv<false>(call, {1, 1, 1, length, length, d}, seed);
}

// ---- positions ------------------------------------------------------------------------------------------------------

RopeAngles angles_of(const KernelCall& call) {
  RopeAngles a;
  a.start = call.integer("start", 0);
  a.base = call.real("base", 10000);
  a.factor = call.real("factor", 1);
  const std::string scaling = call.word("scaling", "none");
  GRAFT_CHECK(scaling == "none" || scaling == "linear" || scaling == "ntk",
              "parameter 'scaling' is '{}', expected none, linear or ntk", printable(scaling, 40));
  if (scaling == "linear") a.scaling = RopeAngles::Scaling::kLinear;
  if (scaling == "ntk") a.scaling = RopeAngles::Scaling::kNtk;
  GRAFT_CHECK(a.base > 0 && std::isfinite(a.base), "parameter 'base' is {}, expected a positive number", a.base);
  GRAFT_CHECK(a.factor > 0 && std::isfinite(a.factor), "parameter 'factor' is {}, expected a positive number",
              a.factor);
  return a;
}

constexpr int64_t kMostPositions = int64_t{1} << 31;

struct AngleShape {
  int64_t length, half;
};
AngleShape angle_shape_of(const KernelCall& call) {
  const int64_t length = call.integer("length", 512), dim = call.integer("dim", 64);
  GRAFT_CHECK(length >= 0 && length <= kMostPositions, "parameter 'length' is {}, expected 0 to {}", length,
              kMostPositions);
  GRAFT_CHECK(dim >= 0 && dim % 2 == 0 && dim <= 1 << 16, "parameter 'dim' is {}, expected an even number up to {}",
              dim, 1 << 16);
  return {length, dim / 2};
}

ScratchNeed prepare_precompute(KernelCall& call) {
  const RopeAngles a = angles_of(call);
  const AngleShape s = angle_shape_of(call);
  GRAFT_CHECK(a.start > -kMostPositions && a.start < kMostPositions, "parameter 'start' is {}, expected within +-{}",
              a.start, kMostPositions);
  call.make("cos", DType::kF32, {s.length, s.half});
  call.make("sin", DType::kF32, {s.length, s.half});
  return rope_precompute_scratch(s.length, s.half);
}
void run_precompute(Context& context, KernelCall& call) {
  const AngleShape s = angle_shape_of(call);
  rope_precompute(context, angles_of(call), View<float, 2>(call.out<float>("cos").data(), s.length, s.half),
                  View<float, 2>(call.out<float>("sin").data(), s.length, s.half));
}
double precompute_bytes(const KernelCall& call) {
  const AngleShape s = angle_shape_of(call);
  return 8 * static_cast<double>(s.length * s.half);
}
double precompute_flops(const KernelCall& call) { return (2 * kTranscendental + 1) / 8 * precompute_bytes(call); }
void example_precompute(KernelCall& call, int64_t size, uint64_t seed) {
  const bool large = size == 10000000;
  const int64_t dim = large ? 128 : size == 1000000 ? 64 : 24;
  const int64_t length = large ? 2048 : size == 1000000 ? 512 : size / dim + 1;
  call.set_parameter("length", std::to_string(length));
  call.set_parameter("dim", std::to_string(dim));
  if (size < 1000000) {
    call.set_parameter("start", std::to_string(1000 * seed));
    call.set_parameter("scaling", size % 2 == 0 ? "ntk" : "linear");
    call.set_parameter("factor", "4.0");
  }
}

bool interleaved(const KernelCall& call) {
  const std::string layout = call.word("layout", "half");
  GRAFT_CHECK(layout == "half" || layout == "interleaved", "parameter 'layout' is '{}', expected half or interleaved",
              printable(layout, 40));
  return layout == "interleaved";
}

// Error unless "cos" and "sin" turn `features` of `length` rows.
void check_angles(const KernelCall& call, int64_t length, int64_t features) {
  call.in_view<float, 2>("cos");
  call.in_view<float, 2>("sin");
  same_shape(call, "cos", "sin");
  const auto& c = call.in_shape("cos");
  GRAFT_CHECK(c[0] == length && 2 * c[1] == features, "input 'cos' is [{}], expected [{}, {}]", fmt::join(c, ", "),
              length, static_cast<double>(features) / 2);
}

ScratchNeed prepare_apply(KernelCall& call) {
  const auto x = call.in_view<float, 4>("x");
  check_angles(call, x.extent(1), x.extent(3));
  interleaved(call);
  call.make("y", DType::kF32, call.in_shape("x"));
  return {};
}
void run_apply(Context& context, KernelCall& call) {
  const auto x = call.in_view<float, 4>("x");
  rope_apply(context, x, call.in_view<float, 2>("cos"), call.in_view<float, 2>("sin"), interleaved(call),
             View<float, 4>(call.out<float>("y").data(), x.extents(), x.strides()));
}
void add_angles(KernelCall& call, int64_t length, int64_t half, uint64_t seed) {
  add_uniform(call, "cos", {length, half}, seed);
  add_uniform(call, "sin", {length, half}, seed);
}
void example_apply(KernelCall& call, int64_t size, uint64_t seed) {
  const bool large = size == 10000000;
  const int64_t d = large ? 128 : size == 1000000 ? 64 : size % 2 == 0 ? 64 : 24, heads = large ? 32 : 1;
  const int64_t length = size >= 1000000 ? 512 : size / d + 1, batch = large ? 4 : size == 4097 ? 3 : 1;
  add_uniform(call, "x", {batch, length, heads, d}, seed);
  add_angles(call, length, d / 2, seed);
  if (size == 20001) call.set_parameter("layout", "interleaved");
}

ScratchNeed prepare_alibi(KernelCall& call) {
  const auto scores = call.in_view<float, 3>("scores");
  call.make("y", DType::kF32, call.in_shape("scores"));
  call.make("slopes", DType::kF32, {scores.extent(0)});
  return {};
}
void run_alibi(Context& context, KernelCall& call) {
  const auto scores = call.in_view<float, 3>("scores");
  alibi_slopes(call.out<float>("slopes"));
  alibi_bias(context, scores, call.out<float>("slopes"),
             View<float, 3>(call.out<float>("y").data(), scores.extents(), scores.strides()));
}
template <int kPer>
double per_score(const KernelCall& call) {
  return kPer * length_of(call, "scores");
}
void example_alibi(KernelCall& call, int64_t size, uint64_t seed) {
  if (size >= 1000000) {
    add_uniform(call, "scores", {size == 10000000 ? 32 : 1, 512, 512}, seed);
  } else {
    add_uniform(call, "scores", {6, size / 300 + 1, size / 100 + 1}, seed);
  }
}

// ---- scores of turned queries and keys ------------------------------------------------------------------------------

ScratchNeed prepare_scores(KernelCall& call) {
  const auto q = call.in_view<float, 3>("q");
  call.in_view<float, 3>("k");
  same_shape(call, "q", "k");
  check_angles(call, q.extent(1), q.extent(2));
  const double scale = scale_of(call);
  GRAFT_CHECK(std::isfinite(scale), "parameter 'scale' is {}, expected a finite number", scale);
  call.make("scores", DType::kF32, {q.extent(0), q.extent(1), q.extent(1)});
  return fused_rope_attention_mask_scratch(q.extent(0), q.extent(1), q.extent(2));
}
void run_scores(Context& context, KernelCall& call) {
  const auto q = call.in_view<float, 3>("q");
  fused_rope_attention_mask(context, q, call.in_view<float, 3>("k"), call.in_view<float, 2>("cos"),
                            call.in_view<float, 2>("sin"), scale_of(call),
                            View<float, 3>(call.out<float>("scores").data(), q.extent(0), q.extent(1), q.extent(1)));
}
double scores_of(const KernelCall& call) {
  const auto& q = call.in_shape("q");
  return static_cast<double>(q[0]) * static_cast<double>(q[1] * q[1]);
}
double scores_bytes(const KernelCall& call) {
  return 8 * length_of(call, "q") + 8 * length_of(call, "cos") + 4 * scores_of(call);
}
double scores_flops(const KernelCall& call) {
  return 6 * length_of(call, "q") + scores_of(call) * static_cast<double>(call.in_shape("q")[2]);
}
void example_scores(KernelCall& call, int64_t size, uint64_t seed) {
  const bool bench = size >= 1000000;
  const int64_t heads = bench ? size / 1000000 : 2, d = bench ? 64 : size % 2 == 0 ? 16 : 24;
  const int64_t length = bench ? 256 : std::clamp<int64_t>(size / 60, 1, 200);
  add_uniform(call, "q", {heads, length, d}, seed);
  add_uniform(call, "k", {heads, length, d}, seed);
  add_angles(call, length, d / 2, seed);
}

}  // namespace

std::span<const KernelInfo> attention_kernels() {
  static constexpr std::string_view kDomain = "attention";
  static constexpr KernelInfo kRows[] = {
      {"attention_sdpa", kDomain, "o[B,H,Lq,D], lse = softmax(s q k^T) v", attention_bytes<4>, attention_flops,
       prepare_attention<float, Heads::kEqual>, run_attention<float, attention_sdpa>, example_attention<false, 512>},
      {"attention_flash", kDomain, "attention_sdpa from f16", attention_bytes<2>, attention_flops,
       prepare_attention<f16, Heads::kEqual>, run_attention<f16, attention_flash>, example_attention<true, 2048>},
      {"attention_mqa", kDomain, "attention_flash, one key head", attention_bytes<2>, attention_flops,
       prepare_attention<f16, Heads::kOne>, run_attention<f16, attention_mqa>, example_grouped<1>},
      {"attention_gqa", kDomain, "attention_flash, key head h Hkv / H", attention_bytes<2>, attention_flops,
       prepare_attention<f16, Heads::kAny>, run_attention<f16, attention_gqa>, example_grouped<8>},
      {"rope_precompute", kDomain, "cos, sin[L,d/2] of p base^(-2j/d)", precompute_bytes, precompute_flops,
       prepare_precompute, run_precompute, example_precompute},
      {"rope_apply", kDomain, "y[B,L,H,d]: pairs of x turned", bytes_of_x<8>, flops_of_x<0, 3>, prepare_apply,
       run_apply, example_apply, "y=x"},
      {"alibi_bias", kDomain, "y[H,Lq,Lk] = scores - slope distance", per_score<8>, per_score<2>, prepare_alibi,
       run_alibi, example_alibi, "y=scores"},
  };
  return kRows;
}
std::span<const KernelInfo> fused_attention_kernels() {
  static constexpr std::string_view kFused = "fused_custom";
  static constexpr KernelInfo kFusedRows[] = {
      {"fused_attention_softmax_v", kFused, "attention_sdpa of one head, no mask", attention_bytes<4>, attention_flops,
       prepare_one_head, run_one_head, example_one_head},
      {"fused_rope_attention_mask", kFused, "scores[H,L,L] = s rope(q) rope(k)^T, causal", scores_bytes, scores_flops,
       prepare_scores, run_scores, example_scores},
  };
  return kFusedRows;
}

}  // namespace graft
