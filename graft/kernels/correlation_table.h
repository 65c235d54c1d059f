#pragma once

#include <cstdint>

namespace graft {

struct PairSums {
  float x, y;
};
// Sums over a block of d = x - centre and e = y - centre.
struct PairMoments {
  float d, e, dd, ee, de;
};

constexpr int64_t kPanel = 16;  // columns of a panel
constexpr int64_t kPanelRows = 256, kPanelSize = kPanel * kPanelRows;

// What correlation.cc runs on one block of at most 4,096 elements, and covariance.cc on one of at most 256 rows.
struct CorrelationTable {
  PairSums (*sums)(const float* x, const float* y, int64_t n) noexcept;
  PairMoments (*moments)(const float* x, const float* y, float x_centre, float y_centre, int64_t n) noexcept;
  float (*product)(const float* x, const float* w, int64_t n) noexcept;
  PairSums (*weighted)(const float* x, const float* w, int64_t n) noexcept;  // x: sum of w x, y: sum of w

  // Columns centred on centre[c] = their mean in f32, to panels[columns / 16, rounded up][256][16]; rest[c] = sum of what is left. In the
  // last panel columns past `columns` are 0.
  void (*centre)(const float* x, int64_t stride, int64_t rows, int64_t columns, float* panels, float* centre,
                 float* rest) noexcept;
  // For the 16 columns a of panel `at`, and those b of it and the panels behind it (`num_panels` in all):
  // y[a, b] = sum over the rows of a b. y: 16 rows, `stride` apart, columns counted from panel 0.
  void (*products)(const float* panels, int64_t rows, int64_t at, int64_t num_panels, float* y,
                   int64_t stride) noexcept;
  // m[b] += fma(q, delta[b], fma(p, rest[b], products[b])).
  void (*merge)(const float* products, const double* rest, const double* delta, double p, double q, double* m,
                int64_t n) noexcept;
};
const CorrelationTable& correlation_ref() noexcept;
const CorrelationTable& correlation_fma_ref() noexcept;
const CorrelationTable* correlation_simd() noexcept;  // null: run the reference

}  // namespace graft
