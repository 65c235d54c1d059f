#include "graft/kernels/map.h"

#include <algorithm>
#include <cassert>

#include "graft/kernels/map_table.h"
#include "graft/kernels/ref.h"
#include "graft/kernels/rows.h"

namespace graft {
namespace {

const MapTable& table() noexcept {
  if (const MapTable* simd = map_simd()) return *simd;
  return pick_reference(map_ref(), map_fma_ref());
}

// From here on an output is taken to leave the cache, and is stored past it: reading its lines first would be a quarter of the traffic.
constexpr int64_t kStreamElements = int64_t{4} << 20;

// f(begin, count, stream) over ranges of n elements; small spans stay on this thread, without the pool.
template <typename F>
void for_ranges(Context& context, int64_t n, F&& f) noexcept {
  const bool stream = n >= kStreamElements;
  if (n <= kTaskElements) {
    if (n > 0) f(int64_t{0}, n, stream);
    return;
  }
  const int64_t tasks = (n + kTaskElements - 1) / kTaskElements;
  context.pool().parallel(tasks, [&](int64_t task, int) {
    const int64_t begin = task * kTaskElements;
    f(begin, std::min(kTaskElements, n - begin), stream);
  });
}

void unary(Context& context, UnaryMap op, std::span<const float> x, float p, float q, std::span<float> y) noexcept {
  assert(x.size() == y.size());
  const MapTable& t = table();
  for_ranges(context, static_cast<int64_t>(x.size()), [&](int64_t begin, int64_t n, bool stream) {
    t.unary(op, x.data() + begin, p, q, y.data() + begin, n, stream);
  });
}

using Binary = void (*)(const float*, const float*, float*, int64_t, bool) noexcept;
void binary(Context& context, Binary f, std::span<const float> a, std::span<const float> b,
            std::span<float> y) noexcept {
  assert(a.size() == y.size() && b.size() == y.size());
  for_ranges(context, static_cast<int64_t>(y.size()), [&](int64_t begin, int64_t n, bool stream) {
    f(a.data() + begin, b.data() + begin, y.data() + begin, n, stream);
  });
}

}  // namespace

#define GRAFT_UNARY(name, op) \
  void name(Context& context, std::span<const float> x, std::span<float> y) noexcept { unary(context, op, x, 0, 0, y); }
GRAFT_UNARY(map_exp, UnaryMap::kExp)
GRAFT_UNARY(map_log, UnaryMap::kLog)
GRAFT_UNARY(map_sigmoid, UnaryMap::kSigmoid)
GRAFT_UNARY(map_tanh, UnaryMap::kTanh)
GRAFT_UNARY(map_softplus, UnaryMap::kSoftplus)
GRAFT_UNARY(map_abs, UnaryMap::kAbs)
GRAFT_UNARY(map_relu, UnaryMap::kRelu)
GRAFT_UNARY(map_silu, UnaryMap::kSilu)
GRAFT_UNARY(map_mish, UnaryMap::kMish)
#undef GRAFT_UNARY

void map_clamp(Context& context, std::span<const float> x, float low, float high, std::span<float> y) noexcept {
  unary(context, UnaryMap::kClamp, x, low, high, y);
}
void map_leaky_relu(Context& context, std::span<const float> x, float alpha, std::span<float> y) noexcept {
  unary(context, UnaryMap::kLeakyRelu, x, alpha, 0, y);
}
void map_elu(Context& context, std::span<const float> x, float alpha, std::span<float> y) noexcept {
  unary(context, UnaryMap::kElu, x, alpha, 0, y);
}
void map_gelu(Context& context, std::span<const float> x, GeluForm form, std::span<float> y) noexcept {
  unary(context, form == GeluForm::kTanh ? UnaryMap::kGeluTanh : UnaryMap::kGeluErf, x, 0, 0, y);
}

void map_add(Context& context, std::span<const float> a, std::span<const float> b, std::span<float> y) noexcept {
  binary(context, table().add, a, b, y);
}
void map_mul(Context& context, std::span<const float> a, std::span<const float> b, std::span<float> y) noexcept {
  binary(context, table().mul, a, b, y);
}
void map_div(Context& context, std::span<const float> a, std::span<const float> b, std::span<float> y) noexcept {
  binary(context, table().div, a, b, y);
}
void map_fma(Context& context, std::span<const float> a, std::span<const float> b, std::span<const float> c,
             std::span<float> y) noexcept {
  assert(a.size() == y.size() && b.size() == y.size() && c.size() == y.size());
  const MapTable& t = table();
  for_ranges(context, static_cast<int64_t>(y.size()), [&](int64_t begin, int64_t n, bool stream) {
    t.fma(a.data() + begin, b.data() + begin, c.data() + begin, y.data() + begin, n, stream);
  });
}
void map_compare(Context& context, std::span<const float> a, std::span<const float> b, Comparison op,
                 std::span<uint8_t> mask) noexcept {
  assert(a.size() == mask.size() && b.size() == mask.size());
  const MapTable& t = table();
  for_ranges(context, static_cast<int64_t>(mask.size()), [&](int64_t begin, int64_t n, bool) {
    t.compare(op, a.data() + begin, b.data() + begin, mask.data() + begin, n);
  });
}

}  // namespace graft
