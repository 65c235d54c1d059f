#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graft/bench/machine_simd.cc"
// clang-format off
#include "graft/kernels/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

#include "graft/bench/machine_table.h"

HWY_BEFORE_NAMESPACE();
namespace graft::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kLanes = HWY_MAX_BYTES / 4;
constexpr int kChains = 12;  // more than latency times ports on any CPU so far, and they fit 16 registers

float fma(int64_t rounds) noexcept {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.999f), y = hn::Set(d, 0.001f);
  // The chains start from different values: equal ones would be one chain to the compiler.
  auto s0 = hn::Set(d, 0.0f), s1 = hn::Set(d, 0.1f), s2 = hn::Set(d, 0.2f), s3 = hn::Set(d, 0.3f),
       s4 = hn::Set(d, 0.4f);
  auto s5 = hn::Set(d, 0.5f), s6 = hn::Set(d, 0.6f), s7 = hn::Set(d, 0.7f), s8 = hn::Set(d, 0.8f),
       s9 = hn::Set(d, 0.9f);
  auto s10 = hn::Set(d, 1.1f), s11 = hn::Set(d, 1.2f);
  for (int64_t i = 0; i < rounds; ++i) {
    s0 = hn::MulAdd(s0, x, y);
    s1 = hn::MulAdd(s1, x, y);
    s2 = hn::MulAdd(s2, x, y);
    s3 = hn::MulAdd(s3, x, y);
    s4 = hn::MulAdd(s4, x, y);
    s5 = hn::MulAdd(s5, x, y);
    s6 = hn::MulAdd(s6, x, y);
    s7 = hn::MulAdd(s7, x, y);
    s8 = hn::MulAdd(s8, x, y);
    s9 = hn::MulAdd(s9, x, y);
    s10 = hn::MulAdd(s10, x, y);
    s11 = hn::MulAdd(s11, x, y);
  }
  const auto sum =
      hn::Add(hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7))),
              hn::Add(hn::Add(s8, s9), hn::Add(s10, s11)));
  return hn::GetLane(sum);
}

uint32_t read(const uint32_t* data, int64_t count) noexcept {
  const hn::ScalableTag<uint32_t> d;
  const int64_t part = count / 8;  // eight streams
  auto s0 = hn::Zero(d), s1 = s0;
  for (int64_t i = 0; i < part; i += kLanes) {
    s0 = hn::Xor(s0, hn::LoadU(d, data + i));
    s1 = hn::Xor(s1, hn::LoadU(d, data + part + i));
    s0 = hn::Xor(s0, hn::LoadU(d, data + 2 * part + i));
    s1 = hn::Xor(s1, hn::LoadU(d, data + 3 * part + i));
    s0 = hn::Xor(s0, hn::LoadU(d, data + 4 * part + i));
    s1 = hn::Xor(s1, hn::LoadU(d, data + 5 * part + i));
    s0 = hn::Xor(s0, hn::LoadU(d, data + 6 * part + i));
    s1 = hn::Xor(s1, hn::LoadU(d, data + 7 * part + i));
  }
  return hn::GetLane(hn::Xor(s0, s1));
}

// One stream, eight chains: what reading costs in a cache.
float sum(const float* a, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (int64_t i = 0; i < n; i += 8 * kLanes) {
    s0 = hn::Add(s0, hn::Load(d, a + i));
    s1 = hn::Add(s1, hn::Load(d, a + i + kLanes));
    s2 = hn::Add(s2, hn::Load(d, a + i + 2 * kLanes));
    s3 = hn::Add(s3, hn::Load(d, a + i + 3 * kLanes));
    s4 = hn::Add(s4, hn::Load(d, a + i + 4 * kLanes));
    s5 = hn::Add(s5, hn::Load(d, a + i + 5 * kLanes));
    s6 = hn::Add(s6, hn::Load(d, a + i + 6 * kLanes));
    s7 = hn::Add(s7, hn::Load(d, a + i + 7 * kLanes));
  }
  return hn::GetLane(hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7))));
}

template <bool kStream, typename V>
HWY_INLINE void store(V v, float* to) {
  const hn::ScalableTag<float> d;
  if constexpr (kStream) {
    hn::Stream(v, d, to);
  } else {
    hn::Store(v, d, to);
  }
}

template <bool kStream>
void copy_as(const float* a, float* y, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    const auto v0 = hn::Load(d, a + i), v1 = hn::Load(d, a + i + kLanes);
    const auto v2 = hn::Load(d, a + i + 2 * kLanes), v3 = hn::Load(d, a + i + 3 * kLanes);
    store<kStream>(v0, y + i);
    store<kStream>(v1, y + i + kLanes);
    store<kStream>(v2, y + i + 2 * kLanes);
    store<kStream>(v3, y + i + 3 * kLanes);
  }
}
void copy(const float* a, float* y, int64_t n, bool stream) noexcept {
  stream ? copy_as<true>(a, y, n) : copy_as<false>(a, y, n);
}

template <bool kStream>
void triad_as(const float* a, const float* b, float* y, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  const auto c = hn::Set(d, 0.5f);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    store<kStream>(hn::MulAdd(c, hn::Load(d, b + i), hn::Load(d, a + i)), y + i);
    store<kStream>(hn::MulAdd(c, hn::Load(d, b + i + kLanes), hn::Load(d, a + i + kLanes)), y + i + kLanes);
  }
}
void triad(const float* a, const float* b, float* y, int64_t n, bool stream) noexcept {
  stream ? triad_as<true>(a, b, y, n) : triad_as<false>(a, b, y, n);
}

template <bool kStream>
void write_as(float* y, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  const auto v = hn::Set(d, 1.0f);
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    for (int64_t k = 0; k < 4; ++k) store<kStream>(v, y + i + k * kLanes);
  }
}
void write(float* y, int64_t n, bool stream) noexcept { stream ? write_as<true>(y, n) : write_as<false>(y, n); }

void update(float* y, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  const auto c = hn::Set(d, 0.999f);
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    for (int64_t k = 0; k < 4; ++k) hn::Store(hn::Mul(c, hn::Load(d, y + i + k * kLanes)), d, y + i + k * kLanes);
  }
}
void accumulate(const float* a, float* y, int64_t n) noexcept {
  const hn::ScalableTag<float> d;
  const auto c = hn::Set(d, 0.5f);
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    for (int64_t k = 0; k < 4; ++k) {
      float* to = y + i + k * kLanes;
      hn::Store(hn::MulAdd(c, hn::Load(d, a + i + k * kLanes), hn::Load(d, to)), d, to);
    }
  }
}

constexpr MachineTable kMachineTable = {fma, kChains* kLanes * 2, read, sum, copy, triad, write, update, accumulate};

}  // namespace
}  // namespace graft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace graft {
const MachineTable* machine_simd() noexcept { return GRAFT_SIMD_TABLE(kMachineTable); }
#if !defined(__x86_64__)
float (*machine_bf16_dot() noexcept)(int64_t) noexcept { return nullptr; }
#endif
}  // namespace graft
#endif
