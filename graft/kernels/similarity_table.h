#pragma once

#include <cstdint>

namespace graft {

struct CosineSums {
  float ab, aa, bb;
};

// What similarity.cc runs on a row of n elements.
struct SimilarityTable {
  float (*dot)(const float* a, const float* b, int64_t n) noexcept;
  CosineSums (*cosine)(const float* a, const float* b, int64_t n) noexcept;
};
const SimilarityTable& similarity_ref() noexcept;
const SimilarityTable& similarity_fma_ref() noexcept;
const SimilarityTable* similarity_simd() noexcept;  // null: run the reference

}  // namespace graft
