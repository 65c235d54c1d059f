#pragma once

#include <cstdint>

#include "graft/kernels/map.h"

namespace graft {

enum class UnaryMap : uint8_t {
  kExp,
  kLog,
  kSigmoid,
  kTanh,
  kSoftplus,
  kClamp,
  kAbs,
  kRelu,
  kLeakyRelu,
  kElu,
  kGeluTanh,
  kGeluErf,
  kSilu,
  kMish
};

// What map.cc runs on a range. p, q: parameters of the map (low, high; alpha). `stream`: y leaves the cache, so store past it.
struct MapTable {
  void (*unary)(UnaryMap op, const float* x, float p, float q, float* y, int64_t n, bool stream) noexcept;
  void (*add)(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept;
  void (*mul)(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept;
  void (*div)(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept;
  void (*fma)(const float* a, const float* b, const float* c, float* y, int64_t n, bool stream) noexcept;
  void (*compare)(Comparison op, const float* a, const float* b, uint8_t* mask, int64_t n) noexcept;
};
const MapTable& map_ref() noexcept;
const MapTable& map_fma_ref() noexcept;
const MapTable* map_simd() noexcept;  // null: run the reference

// visit(map) with the chain that `op` names; for map_ref_inl.h and map_simd.cc.
#define GRAFT_VISIT_UNARY_MAP(op, p, q, visit)                \
  switch (op) {                                               \
    case UnaryMap::kExp: return visit(ExpMap{});              \
    case UnaryMap::kLog: return visit(LogMap{});              \
    case UnaryMap::kSigmoid: return visit(SigmoidMap{});      \
    case UnaryMap::kTanh: return visit(TanhMap{});            \
    case UnaryMap::kSoftplus: return visit(SoftplusMap{});    \
    case UnaryMap::kClamp: return visit(ClampMap{p, q});      \
    case UnaryMap::kAbs: return visit(AbsMap{});              \
    case UnaryMap::kRelu: return visit(ReluMap{});            \
    case UnaryMap::kLeakyRelu: return visit(LeakyReluMap{p}); \
    case UnaryMap::kElu: return visit(EluMap{p});             \
    case UnaryMap::kGeluTanh: return visit(GeluTanhMap{});    \
    case UnaryMap::kGeluErf: return visit(GeluErfMap{});      \
    case UnaryMap::kSilu: return visit(SiluMap{});            \
    case UnaryMap::kMish: return visit(MishMap{});            \
  }

}  // namespace graft
