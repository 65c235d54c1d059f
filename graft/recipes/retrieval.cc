#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/kernels/compact.h"
#include "graft/kernels/layout.h"
#include "graft/kernels/map.h"
#include "graft/kernels/quantize.h"
#include "graft/kernels/select.h"
#include "graft/kernels/similarity.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

using Values = std::vector<float>;

constexpr int64_t kProbes = 16;  // rows scored for each neighbour before the bound is set

// Rows `ids` of a table.
Values gathered(View<const float, 2> table, std::span<const int32_t> ids, std::string_view what) {
  Values rows;
  rows.reserve(ids.size() * static_cast<size_t>(table.extent(1)));
  for (const int32_t id : ids) {
    GRAFT_CHECK(id >= 0 && id < table.extent(0), "{} {}, expected 0 to {}", what, id, table.extent(0) - 1);
    rows.insert(rows.end(), table.row(id), table.row(id) + table.extent(1));
  }
  return rows;
}

// The query against rows [n, D]: every row of the first operand is the query.
void dots(Context& context, std::span<const float> query, const Values& rows, std::span<float> scores) {
  const auto n = static_cast<int64_t>(scores.size()), d = static_cast<int64_t>(query.size());
  dot_batched(context, View<const float, 2>(query.data(), {n, d}, {0, 1}), View<const float, 2>(rows.data(), n, d),
              scores);
}

}  // namespace

Recommendation recommendation(Context& context, View<const float, 2> users, View<const float, 2> items,
                              std::span<const int32_t> asked, std::span<const int32_t> candidates, int64_t k) {
  const int64_t d = users.extent(1),
                among = candidates.empty() ? items.extent(0) : static_cast<int64_t>(candidates.size());
  const auto n = static_cast<int64_t>(asked.size());
  GRAFT_CHECK(users.contiguous() && items.contiguous() && items.extent(1) == d,
              "users of {} features and items of {}, expected as many, and rows that are contiguous", d,
              items.extent(1));
  GRAFT_CHECK(among <= INT32_MAX && k >= 1 && k <= among, "{} of {} items, expected 1 to all of them", k, among);
  const Values u = gathered(users, asked, "user");
  Values scores(static_cast<size_t>(n * among));
  if (candidates.empty()) {
    Values turned(static_cast<size_t>(items.size()));
    transpose_2d(context, items, View<float, 2>(turned.data(), d, among));
    context.reserve(matmul_batched_scratch(n, d, among));
    matmul_batched(context, View<const float, 3>(u.data(), 1, n, d), View<const float, 3>(turned.data(), 1, d, among),
                   View<float, 3>(scores.data(), 1, n, among));
  } else {
    const Values rows = gathered(items, candidates, "item");
    for (int64_t i = 0; i < n; ++i) {
      dots(context, std::span(u).subspan(static_cast<size_t>(i * d), static_cast<size_t>(d)), rows,
           std::span(scores).subspan(static_cast<size_t>(i * among), static_cast<size_t>(among)));
    }
  }
  Recommendation result{std::vector<int32_t>(static_cast<size_t>(n * k)), Values(static_cast<size_t>(n * k))};
  context.reserve(select_scratch(among));
  Values largest(result.scores.size());
  for (int64_t i = 0; i < n; ++i) {
    const auto part = [at = static_cast<size_t>(i * k), count = static_cast<size_t>(k)](auto& x) {
      return std::span(x).subspan(at, count);
    };
    const std::span<float> top = part(result.scores);
    topk_select(context,
                std::span<const float>(scores).subspan(static_cast<size_t>(i * among), static_cast<size_t>(among)), top,
                part(result.items));
    // They fall, so the largest magnitude is at an end.
    const float most = std::max(std::fabs(top.front()), std::fabs(top.back()));
    std::ranges::fill(part(largest), most > 0 ? most : 1.0f);
  }
  if (!candidates.empty()) {
    for (int32_t& item : result.items) item = candidates[static_cast<size_t>(item)];
  }
  map_div(context, result.scores, largest, result.scores);
  return result;
}

VectorIndex vector_index(Context& context, View<const f16, 2> vectors) {
  const int64_t rows = vectors.extent(0), d = vectors.extent(1);
  GRAFT_CHECK(vectors.contiguous() && rows <= 1 << 24 && d >= 1,
              "{} vectors of {} numbers, expected at most {} contiguous ones of 1 or more", rows, d, 1 << 24);
  VectorIndex index{rows, d, std::vector<int8_t>(static_cast<size_t>(rows * d)), Values(static_cast<size_t>(rows))};
  context.reserve(quantize_scratch(rows, d));
  quantize_f16_to_i8(context, vectors, View<int8_t, 2>(index.values.data(), rows, d), index.scale);
  return index;
}

Neighbours vector_search(Context& context, const VectorIndex& index, std::span<const float> query, int64_t k) {
  GRAFT_CHECK(static_cast<int64_t>(query.size()) == index.dim, "a query of {} numbers, expected {}", query.size(),
              index.dim);
  GRAFT_CHECK(k >= 0, "{} neighbours, expected 0 or more", k);
  double length = 0;  // of the query, in the 1-norm
  for (const float v : query) length += std::fabs(static_cast<double>(v));
  GRAFT_CHECK(std::isfinite(length), "the query is not finite");
  const auto d = static_cast<size_t>(index.dim);
  // No number of a row is above 127 scale, rounded to f16 (2^-11 of it, or 2^-25 below the normal numbers), so no score is above this; twice
  // the rounding leaves room for the sum's.
  Values bounds;
  int64_t finite = 0;
  for (const float scale : index.scale) {
    if (!std::isfinite(scale)) {
      bounds.push_back(-std::numeric_limits<float>::infinity());
      continue;
    }
    const double bound = (127 * static_cast<double>(scale) * (1 + 0x1p-10) + 0x1p-24) * length;
    GRAFT_CHECK(bound <= std::numeric_limits<float>::max(), "the query is too large: scores up to {} do not fit f32",
                bound);
    bounds.push_back(static_cast<float>(bound));
    ++finite;
  }
  const int64_t most = std::min(k, finite);
  Neighbours result;
  if (most == 0) return result;
  // Scores of rows, in f32 of the f16 that they dequantize to.
  const auto scored = [&](std::span<const int32_t> ids) {
    std::vector<int8_t> q;
    Values scale, rows, scores(ids.size());
    for (const int32_t id : ids) {
      const auto at = index.values.begin() + static_cast<int64_t>(id) * index.dim;
      q.insert(q.end(), at, at + index.dim);
      scale.push_back(index.scale[static_cast<size_t>(id)]);
    }
    std::vector<f16> half(q.size());
    dequantize_i8_to_f16(context, View<const int8_t, 2>(q.data(), ids.size(), d), scale,
                         View<f16, 2>(half.data(), ids.size(), d));
    rows.reserve(half.size());
    for (const f16 v : half) rows.push_back(to_float(v));
    dots(context, query, rows, scores);
    return scores;
  };
  // Rows of the largest bounds, several for each neighbour: their k-th best score is a floor below that of all.
  context.reserve(select_scratch(index.rows));
  const auto best = [&](const Values& x, int64_t count) {
    Neighbours top{std::vector<int32_t>(static_cast<size_t>(count)), Values(static_cast<size_t>(count)), 0};
    topk_select(context, x, top.scores, top.ids);
    return top;
  };
  const std::vector<int32_t> probes = best(bounds, std::min(finite, kProbes * most)).ids;
  const Values floor(bounds.size(), best(scored(probes), most).scores.back());
  std::vector<uint8_t> mask(bounds.size());
  map_compare(context, bounds, floor, Comparison::kGe, mask);
  Values ids(bounds.size()), kept(bounds.size());  // exact in f32: at most 2^24
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<float>(i);
  context.reserve(compact_scratch(index.rows));
  kept.resize(compact_mask(context, ids, mask, kept));
  const std::vector<int32_t> candidates(kept.begin(), kept.end());
  result = best(scored(candidates), most);
  result.candidates = static_cast<int64_t>(candidates.size());
  for (int32_t& id : result.ids) id = candidates[static_cast<size_t>(id)];
  return result;
}

}  // namespace graft
