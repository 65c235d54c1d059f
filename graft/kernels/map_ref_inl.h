#pragma once

// The scalar reference of the maps: map_chains_inl.h over one lane. Compiled twice (ref.h).

#include "graft/kernels/map_table.h"
#include "graft/kernels/scalar_lanes_inl.h"

namespace graft {
namespace {

namespace hn = scalar_lanes;
#define HWY_INLINE inline
#include "graft/kernels/map_chains_inl.h"
#undef HWY_INLINE

constexpr hn::FloatTag kTag;

void unary(UnaryMap op, const float* x, float p, float q, float* y, int64_t n, bool /*stream*/) noexcept {
  const auto each = [=](auto map) {
    for (int64_t i = 0; i < n; ++i) y[i] = map(kTag, x[i]);
  };
  GRAFT_VISIT_UNARY_MAP(op, p, q, each)
}

template <class Map>
void binary(const float* a, const float* b, float* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = Map()(kTag, a[i], b[i]);
}

void ternary(const float* a, const float* b, const float* c, float* y, int64_t n, bool /*stream*/) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = FmaMap()(kTag, a[i], b[i], c[i]);
}

void compare(Comparison op, const float* a, const float* b, uint8_t* mask, int64_t n) noexcept {
  const auto each = [=](auto holds) {
    for (int64_t i = 0; i < n; ++i) mask[i] = holds(a[i], b[i]) ? 1 : 0;
  };
  switch (op) {
    case Comparison::kEq: return each([](float s, float t) { return s == t; });
    case Comparison::kNe: return each([](float s, float t) { return s != t; });
    case Comparison::kLt: return each([](float s, float t) { return s < t; });
    case Comparison::kLe: return each([](float s, float t) { return s <= t; });
    case Comparison::kGt: return each([](float s, float t) { return s > t; });
    case Comparison::kGe: return each([](float s, float t) { return s >= t; });
  }
}

constexpr MapTable kTable = {unary, binary<AddMap>, binary<MulMap>, binary<DivMap>, ternary, compare};

}  // namespace
}  // namespace graft
