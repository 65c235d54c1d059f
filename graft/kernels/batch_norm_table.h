#pragma once

#include <cstdint>

#include "graft/base/view.h"

namespace graft {

constexpr int64_t kRunLength = 64;  // from here on a run of a channel is summed by lanes, below its places are columns
constexpr int64_t kMomentRows = 8;  // rows whose moments are taken at once
constexpr int64_t kStripeColumns = 1024;

// sum (x - centre) and its square over a run, centre the rounded mean.
struct RunMoments {
  float centre, rest, squares;
};

// What batch_norm.cc runs on a stripe of columns or on a run of a channel. `stream`: y leaves the cache, so store past it.
struct BatchNormTable {
  // mean[j] and m2[j] = sum (x - mean)^2 of each column of at most kRowSumBlock rows.
  void (*column_moments)(View<const float, 2> x, float* mean, float* m2) noexcept;
  RunMoments (*run_moments)(const float* x, int64_t n) noexcept;  // n at most kSumBlock
  // y = fma(x - c, a, b), by column or throughout.
  void (*scale_columns)(View<const float, 2> x, const float* c, const float* a, const float* b, View<float, 2> y,
                        bool stream) noexcept;
  void (*scale_run)(const float* x, float c, float a, float b, float* y, int64_t n, bool stream) noexcept;
};
const BatchNormTable& batch_norm_ref() noexcept;
const BatchNormTable& batch_norm_fma() noexcept;
const BatchNormTable* batch_norm_simd() noexcept;  // null: run the reference

// How the moments of `done` rows and of `more` rows join (Chan): mean += delta * mean_part, m2 += m2' + delta^2 * m2_part.
struct Join {
  float mean_part, m2_part;
};
inline Join join_of(int64_t done, int64_t more) noexcept {
  const auto a = static_cast<double>(done), b = static_cast<double>(more);
  return {static_cast<float>(b / (a + b)), static_cast<float>(a * b / (a + b))};
}

}  // namespace graft
