#pragma once

// The scalar reference of the row products (similarity_table.h). Compiled twice (ref.h).

#include <cmath>

#include "graft/kernels/reduce_ref_inl.h"
#include "graft/kernels/similarity_table.h"

namespace graft {
namespace {

float dot(const float* a, const float* b, int64_t n) noexcept {
  return sum_vector<float>(n, [=](float lane, int64_t j) { return std::fma(a[j], b[j], lane); });
}
CosineSums cosine(const float* a, const float* b, int64_t n) noexcept {
  return {dot(a, b, n), dot(a, a, n), dot(b, b, n)};
}

constexpr SimilarityTable kTable = {dot, cosine};

}  // namespace
}  // namespace graft
