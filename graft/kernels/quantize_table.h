#pragma once

#include <cstdint>

#include "graft/base/float16.h"

namespace graft {

// What quantize.cc runs on a part of a row. `stream`: the output leaves the cache.
struct QuantizeTable {
  uint16_t (*max_abs)(const f16* x, int64_t n) noexcept;  // the bits of the largest |x|; NaN is above all
  void (*to_i8)(const f16* x, float scale, int8_t* q, int64_t n,
                bool stream) noexcept;  // scale finite, |x / scale| <= 127
  void (*from_i8)(const int8_t* q, float scale, f16* x, int64_t n, bool stream) noexcept;
  void (*to_f16)(const float* x, f16* y, int64_t n, bool stream) noexcept;
};
const QuantizeTable& quantize_ref() noexcept;
const QuantizeTable& quantize_fma_ref() noexcept;
const QuantizeTable* quantize_simd() noexcept;  // null: run the reference

}  // namespace graft
