#include "graft/kernels/random_fill.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "graft/kernels/math.h"
#include "graft/kernels/random_fill_table.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

// block(words, values): four values from four words. many(block, blocks, to): how many whole blocks from the first on it wrote.
template <typename T, typename Many, typename Block>
void fill(Context& context, const RandomStream& stream, std::span<T> x, const Many& many, const Block& block) noexcept {
  const auto size = static_cast<int64_t>(x.size());
  for_row_ranges(context, (size + 3) / 4, 64, [&](int64_t first, int64_t last) {
    const int64_t done = many(first, std::min(last, size / 4) - first, x.data() + 4 * first);
    for (int64_t b = first + done; b < last; ++b) {
      std::array<double, 4> values;
      block(stream.block(static_cast<uint64_t>(b)), values);
      for (int64_t i = b * 4; i < std::min(b * 4 + 4, size); ++i) {
        x[static_cast<size_t>(i)] = static_cast<T>(values[static_cast<size_t>(i - b * 4)]);
      }
    }
  });
}

}  // namespace

template <typename T>
void fill_uniform(Context& context, const RandomStream& stream, double low, double high, std::span<T> x) noexcept {
  const double width = high - low;
  const auto none = [](int64_t, int64_t, T*) { return int64_t{0}; };
  fill(context, stream, x, none, [&](const std::array<uint32_t, 4>& words, std::array<double, 4>& values) {
    for (size_t k = 0; k < 4; ++k) values[k] = low + width * (static_cast<double>(words[k] >> 8) * 0x1p-24);
  });
}

template <typename T>
void fill_normal(Context& context, const RandomStream& stream, double std, std::span<T> x) noexcept {
  const RandomFillTable* const simd = random_fill_simd();
  const PhiloxStream key = {stream.key()[0] | uint64_t{stream.key()[1]} << 32, 0};  // update 0
  const auto many = [&]([[maybe_unused]] int64_t first, [[maybe_unused]] int64_t blocks, [[maybe_unused]] T* to) {
    if constexpr (std::is_same_v<T, float>) {
      if (simd != nullptr) return simd->normal(key, static_cast<uint64_t>(first), blocks, std, to);
    }
    return int64_t{0};
  };
  fill(context, stream, x, many, [&](const std::array<uint32_t, 4>& words, std::array<double, 4>& values) {
    for (size_t k = 0; k < 4; k += 2) {
      const double u1 = (static_cast<double>(words[k] >> 8) + 1) * 0x1p-24,
                   u2 = static_cast<double>(words[k + 1] >> 8) * 0x1p-24;
      const double radius = std * std::sqrt(-2 * log_f64(u1));
      double sine, cosine;
      sincos_f64(6.283185307179586 * u2, &sine, &cosine);
      values[k] = radius * cosine;
      values[k + 1] = radius * sine;
    }
  });
}

template void fill_uniform<float>(Context&, const RandomStream&, double, double, std::span<float>) noexcept;
template void fill_uniform<double>(Context&, const RandomStream&, double, double, std::span<double>) noexcept;
template void fill_normal<float>(Context&, const RandomStream&, double, std::span<float>) noexcept;
template void fill_normal<double>(Context&, const RandomStream&, double, std::span<double>) noexcept;

}  // namespace graft
