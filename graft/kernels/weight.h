#pragma once

#include <cstdint>
#include <span>

#include "graft/base/buffer.h"
#include "graft/base/dtype.h"
#include "graft/kernels/context.h"

namespace graft {

// How a base weight lies in memory. Only formats, the matrix and the gather kernels look inside.
//   kF32:        panels [ceil(out/32)][in][32] of float
//   kBF16, kF16: panels [ceil(out/64)][ceil(in/2)][64][2]: pairs along `in`, read alike by f32 arithmetic, bf16 dot and AMX
//   kF64:        rows [out][in] of double; tests only, through the scalar reference
// Rows beyond `out` and the odd last `in` are zeros in memory and never enter a sum.
class Weight {
 public:
  Weight() = default;
  Weight(DType type, int64_t out_features, int64_t in_features);  // zeroed (untouched pages); kF32, kBF16, kF16 or kF64

  // Packs rows [first_row, first_row + num_rows) from row-major source [num_rows][in] of any float dtype, converting
  // where the types differ (to nearest even). first_row must be a multiple of 64 (or the call must cover the rest).
  // Parallel.
  void pack_rows(Context& context, int64_t first_row, int64_t num_rows, DType source_type, const void* source);
  // The inverse: rows as f32, row-major.
  void unpack_rows(Context& context, int64_t first_row, int64_t num_rows, float* rows) const;

  DType type() const { return type_; }
  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  bool empty() const { return data_.bytes() == 0; }
  size_t bytes() const { return data_.bytes(); }
  const void* data() const { return data_.data(); }
  void* mutable_data() { return data_.data(); }

  static size_t packed_bytes(DType type, int64_t out_features, int64_t in_features);

 private:
  DType type_ = DType::kF32;
  int64_t out_features_ = 0, in_features_ = 0;
  Buffer data_;
};

}  // namespace graft
