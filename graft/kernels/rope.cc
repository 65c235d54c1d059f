#include "graft/kernels/rope.h"

#include <algorithm>
#include <cmath>

#include "graft/kernels/math.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rope_table.h"

namespace graft {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Rotations of a head's pairs in f32, as transformers computes them: powers rounded to f32, then f32 arithmetic.
std::vector<float> default_inv_freq(double theta, int64_t d) {
  std::vector<float> inv_freq(static_cast<size_t>(d / 2));
  for (int64_t i = 0; i < d / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(d);
    inv_freq[static_cast<size_t>(i)] = 1.0f / static_cast<float>(pow_f64(theta, static_cast<double>(exponent)));
  }
  return inv_freq;
}

// theta that stretches the longest wave by `stretch` and leaves the shortest.
double stretched_theta(double theta, double stretch, int64_t d) {
  if (d <= 2) return theta;  // one pair: its frequency is 1 whatever theta is
  return theta * pow_f64(stretch, static_cast<double>(d) / static_cast<double>(d - 2));
}

void scale_llama3(const RopeParameters& p, std::vector<float>& inv_freq) {
  const double original = static_cast<double>(p.original_max_position_embeddings);
  const auto low_wave = static_cast<float>(original / p.low_freq_factor),
             high_wave = static_cast<float>(original / p.high_freq_factor);
  const auto factor = static_cast<float>(p.factor), low = static_cast<float>(p.low_freq_factor);
  for (float& f : inv_freq) {
    const float wave = static_cast<float>(2 * kPi) / f;
    if (wave > low_wave) {
      f = f / factor;
    } else if (!(wave < high_wave)) {
      const float smooth =
          (static_cast<float>(original) / wave - low) / static_cast<float>(p.high_freq_factor - p.low_freq_factor);
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * log_f64(factor) + 1.0; }

double yarn_attention_factor(const RopeParameters& p) {
  if (p.attention_factor != 0) return p.attention_factor;
  if (p.mscale != 0 && p.mscale_all_dim != 0) {
    return yarn_mscale(p.factor, p.mscale) / yarn_mscale(p.factor, p.mscale_all_dim);
  }
  return yarn_mscale(p.factor, 1);
}

void scale_yarn(const RopeParameters& p, std::vector<float>& inv_freq) {
  const double d = static_cast<double>(p.head_dim), original = static_cast<double>(p.original_max_position_embeddings);
  const auto correction = [&](double rotations) {
    return d * log_f64(original / (rotations * 2 * kPi)) / (2 * log_f64(p.theta));
  };
  double low = correction(p.beta_fast), high = correction(p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;
  const auto base = static_cast<float>(low), width = static_cast<float>(high - low),
             factor = static_cast<float>(p.factor);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const float ramp = std::min(std::max((static_cast<float>(i) - base) / width, 0.0f), 1.0f);
    const float keep = 1.0f - ramp, power = 1.0f / inv_freq[i];
    inv_freq[i] = 1.0f / (factor * power) * (1.0f - keep) + inv_freq[i] * keep;
  }
}

}  // namespace

RopeTable make_rope_table(const RopeParameters& p, int64_t length, int64_t seq_length) {
  using Type = RopeParameters::Type;
  RopeTable table;
  table.length = length;
  table.half = p.head_dim / 2;
  double theta = p.theta;
  if (p.type == Type::kNtk) theta = stretched_theta(theta, p.factor, p.head_dim);
  if (p.type == Type::kDynamic) {
    const double limit = static_cast<double>(p.max_position_embeddings);
    const double reached = std::max(static_cast<double>(seq_length > 0 ? seq_length : length), limit);
    theta = stretched_theta(theta, p.factor * reached / limit - (p.factor - 1), p.head_dim);
  }
  table.inv_freq = default_inv_freq(theta, p.head_dim);
  if (p.type == Type::kLinear) {
    for (float& f : table.inv_freq) f /= static_cast<float>(p.factor);
  } else if (p.type == Type::kLlama3) {
    scale_llama3(p, table.inv_freq);
  } else if (p.type == Type::kYarn) {
    scale_yarn(p, table.inv_freq);
    table.attention_scaling = yarn_attention_factor(p);
  }

  const auto scaling = static_cast<float>(table.attention_scaling);
  const size_t half = table.inv_freq.size();
  table.cos.resize(static_cast<size_t>(length) * half);
  table.sin.resize(static_cast<size_t>(length) * half);
  for (size_t position = 0; position < static_cast<size_t>(length); ++position) {
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * table.inv_freq[i];
      double sine, cosine;
      sincos_f64(static_cast<double>(angle), &sine, &cosine);
      table.cos[position * half + i] = static_cast<float>(cosine) * scaling;
      table.sin[position * half + i] = static_cast<float>(sine) * scaling;
    }
  }
  return table;
}

RopeRowFunction rope_row_function() noexcept {
  const RopeRowFunction simd = rope_row_simd();
  if (simd != nullptr) return simd;
  return pick_reference(*rope_row_reference(), *rope_row_fma());
}

namespace {

template <typename T>
RopeRow<T> row_of(const View<const T, 3>& x, const View<T, 3>& y, int64_t token, int32_t position,
                  const RopeTable& table, bool interleaved, bool inverse) {
  RopeRow<T> row;
  row.heads = x.extent(1);
  row.head_dim = x.extent(2);
  row.half = table.half;
  row.x = x.data() + token * x.stride(0);
  row.y = y.data() + token * y.stride(0);
  row.x_head_stride = x.stride(1);
  row.y_head_stride = y.stride(1);
  row.cos = table.cos.data() + position * table.half;
  row.sin = table.sin.data() + position * table.half;
  row.interleaved = interleaved;
  row.inverse = inverse;
  return row;
}

template <typename T, typename F>
void for_each_row(Context& context, View<const T, 3> x, std::span<const int32_t> positions, const RopeTable& table,
                  bool interleaved, bool inverse, View<T, 3> y, F function) noexcept {
  const int64_t tokens = x.extent(0);
  const int64_t row_size = std::max<int64_t>(1, x.extent(1) * x.extent(2));
  const int64_t chunk = std::max<int64_t>(1, 16384 / row_size);  // about two microseconds of work
  const auto run = [&](int64_t task, int) {
    for (int64_t t = task * chunk; t < std::min(tokens, (task + 1) * chunk); ++t) {
      function(row_of(x, y, t, positions[static_cast<size_t>(t)], table, interleaved, inverse));
    }
  };
  if (tokens <= chunk) {
    if (tokens > 0) run(0, 0);
    return;
  }
  context.pool().parallel((tokens + chunk - 1) / chunk, run);
}

}  // namespace

template <>
void rope<float>(Context& context, View<const float, 3> x, std::span<const int32_t> positions, const RopeTable& table,
                 bool interleaved, bool inverse, View<float, 3> y) noexcept {
  for_each_row(context, x, positions, table, interleaved, inverse, y, rope_row_function());
}
template <>
void rope<double>(Context& context, View<const double, 3> x, std::span<const int32_t> positions, const RopeTable& table,
                  bool interleaved, bool inverse, View<double, 3> y) noexcept {
  for_each_row(context, x, positions, table, interleaved, inverse, y, rope_row_double);
}

}  // namespace graft
