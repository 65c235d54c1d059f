#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/kernels/attention_dense.h"
#include "graft/kernels/layout.h"
#include "graft/kernels/map.h"
#include "graft/kernels/norm.h"
#include "graft/kernels/quantize.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

constexpr int64_t kFlashRows = 2048;  // from here on attention_flash (spec/kernels.md, section 24)

using Values = std::vector<float>;

Values values(int64_t n) { return Values(static_cast<size_t>(n)); }

// x [rows, in] w [in, out].
Values multiply(Context& context, const Values& x, std::span<const float> w, int64_t rows, int64_t in, int64_t out) {
  Values y = values(rows * out);
  context.reserve(matmul_batched_scratch(rows, in, out));
  matmul_batched(context, View<const float, 3>(x.data(), 1, rows, in), View<const float, 3>(w.data(), 1, in, out),
                 View<float, 3>(y.data(), 1, rows, out));
  return y;
}

Values normalized(Context& context, std::span<const float> x, std::span<const float> weight, double eps, int64_t rows) {
  const auto hidden = static_cast<int64_t>(weight.size());
  Values y = values(rows * hidden), rrms = values(rows);
  rms_norm<float>(context, View<const float, 2>(x.data(), rows, hidden), weight, eps,
                  View<float, 2>(y.data(), rows, hidden), rrms);
  return y;
}

std::vector<f16> halves(Context& context, std::span<const float> x) {
  std::vector<f16> y(x.size());
  quantize_f32_to_f16(context, x, y);
  return y;
}

// Causal attention of rows: q [rows, heads D], k, v [rows, kv_heads D].
Values attend(Context& context, const BlockWeights& w, const Values& q, const Values& k, const Values& v, int64_t rows,
              bool flash) {
  const int64_t d = w.hidden / w.heads;
  const auto by_head = [&](auto* data, int64_t heads) {  // [1, heads, rows, D] of [rows, heads, D]
    return View<std::remove_pointer_t<decltype(data)>, 4>(data, {1, heads, rows, d}, {0, d, heads * d, 1});
  };
  Values o = values(rows * w.hidden);
  context.reserve(attention_dense_scratch(w.heads, w.kv_heads, rows, rows, d));
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  if (flash) {
    const std::vector<f16> hq = halves(context, q), hk = halves(context, k), hv = halves(context, v);
    attention_flash(context, by_head(hq.data(), w.heads), by_head(hk.data(), w.kv_heads),
                    by_head(hv.data(), w.kv_heads), true, scale, by_head(o.data(), w.heads), {});
  } else {
    attention_sdpa(context, by_head(q.data(), w.heads), by_head(k.data(), w.kv_heads), by_head(v.data(), w.kv_heads),
                   true, scale, by_head(o.data(), w.heads), {});
  }
  return o;
}

void check(const BlockWeights& w) {
  GRAFT_CHECK(w.hidden > 0 && w.heads > 0 && w.hidden % w.heads == 0 && w.kv_heads > 0 && w.heads % w.kv_heads == 0,
              "a layer of {} features, {} heads and {} key heads: each must divide the one before", w.hidden, w.heads,
              w.kv_heads);
  const int64_t kv = w.hidden / w.heads * w.kv_heads;
  const auto sized = [](std::span<const float> x, int64_t n, std::string_view name) {
    GRAFT_CHECK(static_cast<int64_t>(x.size()) == n, "weight '{}' has {} elements, expected {}", name, x.size(), n);
  };
  sized(w.attention_norm, w.hidden, "attention_norm"), sized(w.mlp_norm, w.hidden, "mlp_norm");
  sized(w.q, w.hidden * w.hidden, "q"), sized(w.o, w.hidden * w.hidden, "o");
  sized(w.k, w.hidden * kv, "k"), sized(w.v, w.hidden * kv, "v");
  sized(w.up, w.hidden * w.inner, "up"), sized(w.down, w.inner * w.hidden, "down");
  if (!w.gate.empty()) sized(w.gate, w.hidden * w.inner, "gate");
}

Values layer(Context& context, const BlockWeights& w, std::span<const float> x, int64_t rows, bool flash) {
  const int64_t kv = w.hidden / w.heads * w.kv_heads;
  const Values h = normalized(context, x, w.attention_norm, w.eps, rows);
  const Values q = multiply(context, h, w.q, rows, w.hidden, w.hidden),
               k = multiply(context, h, w.k, rows, w.hidden, kv), v = multiply(context, h, w.v, rows, w.hidden, kv);
  Values y = multiply(context, attend(context, w, q, k, v, rows, flash), w.o, rows, w.hidden, w.hidden);
  map_add(context, x, y, y);
  const Values n = normalized(context, y, w.mlp_norm, w.eps, rows);
  Values up = multiply(context, n, w.up, rows, w.hidden, w.inner);
  if (w.gate.empty()) {
    map_silu(context, up, up);
  } else {
    Values gate = multiply(context, n, w.gate, rows, w.hidden, w.inner);
    map_silu(context, gate, gate);
    map_mul(context, gate, up, up);
  }
  const Values down = multiply(context, up, w.down, rows, w.inner, w.hidden);
  map_add(context, y, down, y);
  return y;
}

}  // namespace

std::vector<float> transformer_block(Context& context, const BlockWeights& w, View<const float, 2> x) {
  check(w);
  GRAFT_CHECK(x.contiguous() && x.extent(1) == w.hidden, "x has {} features, expected {} contiguous ones", x.extent(1),
              w.hidden);
  GRAFT_CHECK(!w.gate.empty(), "weight 'gate' is missing");
  return layer(context, w, {x.data(), static_cast<size_t>(x.size())}, x.extent(0), x.extent(0) >= kFlashRows);
}

std::vector<float> ml_inference(Context& context, const BlockWeights& w, View<const float, 2> embedding,
                                std::span<const int32_t> tokens) {
  check(w);
  GRAFT_CHECK(embedding.extent(1) == w.hidden && embedding.stride(1) == 1,
              "embeddings have {} features, expected {} contiguous ones", embedding.extent(1), w.hidden);
  GRAFT_CHECK(w.gate.empty(), "weight 'gate' is given, expected a layer without it");
  Values x;
  for (const int32_t t : tokens) {
    GRAFT_CHECK(t >= 0 && t < embedding.extent(0), "token {}, expected 0 to {}", t, embedding.extent(0) - 1);
    x.insert(x.end(), embedding.row(t), embedding.row(t) + w.hidden);
  }
  return layer(context, w, x, static_cast<int64_t>(tokens.size()), true);
}

std::vector<float> diffusion(Context& context, View<const float, 2> x, int64_t groups,
                             std::span<const float> schedule) {
  const int64_t channels = x.extent(0), length = x.extent(1);
  GRAFT_CHECK(x.contiguous() && groups > 0 && channels > 0 && channels % groups == 0,
              "{} channels in {} groups, expected a multiple, and rows that are contiguous", channels, groups);
  Values y(x.data(), x.data() + x.size()), h = values(x.size()), turned = values(x.size());
  const Values gamma(static_cast<size_t>(channels), 1.0f), beta(static_cast<size_t>(channels), 0.0f);
  context.reserve(attention_dense_scratch(1, 1, length, length, channels));
  const double scale = 1 / std::sqrt(static_cast<double>(channels));
  const View<float, 2> by_position(turned.data(), length, channels), by_channel(h.data(), channels, length);
  for (const float amount : schedule) {
    group_norm(context, View<const float, 3>(y.data(), 1, channels, length), gamma, beta, groups, 1e-5,
               View<float, 3>(h.data(), 1, channels, length));
    transpose_2d(context, by_channel, by_position);
    const std::vector<f16> half = halves(context, turned);
    const View<const f16, 4> rows(half.data(), 1, 1, length, channels);
    attention_flash(context, rows, rows, rows, false, scale, View<float, 4>(turned.data(), 1, 1, length, channels), {});
    map_silu(context, turned, turned);
    transpose_2d(context, by_position, by_channel);
    for (float& value : h) value *= -amount;
    map_add(context, y, h, y);
  }
  return y;
}

}  // namespace graft
