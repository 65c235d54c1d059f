#include "graft/kernels/similarity.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"
#include "graft/kernels/similarity_table.h"

namespace graft {
namespace {

const SimilarityTable& table() noexcept {
  if (const SimilarityTable* simd = similarity_simd()) return *simd;
  return pick_reference(similarity_ref(), similarity_fma_ref());
}

// f(row) for every row; few elements stay on this thread, without the pool.
template <typename F>
void for_rows(Context& context, const View<const float, 2>& a, F&& f) noexcept {
  const auto some = [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) f(r);
  };
  if (a.size() <= kTaskElements) return some(0, a.extent(0));
  for_row_ranges(context, a.extent(0), a.extent(1), some);
}

}  // namespace

void dot_batched(Context& context, View<const float, 2> a, View<const float, 2> b, std::span<float> y) noexcept {
  assert(a.extents() == b.extents() && static_cast<int64_t>(y.size()) == a.extent(0) && streams(a) && streams(b));
  const SimilarityTable& t = table();
  for_rows(context, a, [&](int64_t r) { y[static_cast<size_t>(r)] = t.dot(a.row(r), b.row(r), a.extent(1)); });
}

void cosine_similarity(Context& context, View<const float, 2> a, View<const float, 2> b, double eps,
                       std::span<float> y) noexcept {
  assert(a.extents() == b.extents() && static_cast<int64_t>(y.size()) == a.extent(0) && streams(a) && streams(b));
  const SimilarityTable& t = table();
  const auto least = static_cast<float>(eps);
  const auto floored = [least](float norm) { return norm < least ? least : norm; };  // NaN stays
  for_rows(context, a, [&](int64_t r) {
    const CosineSums s = t.cosine(a.row(r), b.row(r), a.extent(1));
    y[static_cast<size_t>(r)] = s.ab / floored(std::sqrt(s.aa)) / floored(std::sqrt(s.bb));
  });
}

}  // namespace graft
