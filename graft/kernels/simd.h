#pragma once

// How a kernel family gets its vector versions. A file NAME_simd.cc is compiled once per instruction set by Highway's
// foreach_target and offers, per set, a table of function pointers; NAME.cc picks the table of the CPU level in force,
// or the scalar reference:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "graft/kernels/norm_simd.cc"   // this file
//   #include "graft/kernels/simd.h"                           // before any Highway header: it names the targets
//   #include "hwy/foreach_target.h"
//   #include "hwy/highway.h"
//   #include "graft/kernels/norm_table.h"                     // struct NormTable { void (*rms_norm)(…); … };
//   HWY_BEFORE_NAMESPACE();
//   namespace graft::HWY_NAMESPACE {
//   namespace { void rms_norm(…) { … } }                      // hn = hwy::HWY_NAMESPACE; lambdas inside need HWY_ATTR
//   constexpr NormTable kNormTable = {rms_norm, …};
//   }  // namespace graft::HWY_NAMESPACE
//   HWY_AFTER_NAMESPACE();
//   #if HWY_ONCE
//   namespace graft { const NormTable* norm_simd() noexcept { return GRAFT_SIMD_TABLE(kNormTable); } }  // null: run the reference
//   #endif
//
// Each namespace must be opened in full between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE; templates from other
// headers (std::min, View) that are instantiated there are shared with the rest of the program, so keep them out of
// inner loops and never mark them with a target. simd_test.cc is a complete small example.

#include "graft/base/cpu.h"

#if defined(HWY_HIGHWAY_INCLUDED) && !defined(GRAFT_SIMD_TARGETS_SET)
#error "include graft/kernels/simd.h before any Highway header"
#endif
#define GRAFT_SIMD_TARGETS_SET 1

// Targets below AVX2 have no fused multiply-add and run the scalar reference; targets above AVX3 add nothing for f32.
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS \
  HWY_AVX2  // the last pass of foreach_target; code still runs only where cpu_level() says so
#if defined(GRAFT_SIMD_AVX2_ONLY)
#define HWY_DISABLED_TARGETS (~(HWY_AVX2))
#else
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
#endif
#elif defined(__aarch64__)
#define HWY_DISABLED_TARGETS (~(HWY_NEON))
#endif

namespace graft {

enum class SimdTarget { kReference, kAvx2, kAvx3, kNeon };

// The vector code that the CPU level in force runs.
inline SimdTarget simd_target() noexcept {
  switch (cpu_level()) {
    case CpuLevel::kScalar:
    case CpuLevel::kSse4: return SimdTarget::kReference;
    case CpuLevel::kAvx2: return SimdTarget::kAvx2;
    case CpuLevel::kAvx512:
    case CpuLevel::kAvx512Bf16:
    case CpuLevel::kAmx:
#if defined(GRAFT_SIMD_AVX2_ONLY)
      return SimdTarget::kAvx2;
#else
      return SimdTarget::kAvx3;
#endif
    case CpuLevel::kNeon: return SimdTarget::kNeon;
  }
  return SimdTarget::kReference;
}

}  // namespace graft

// Address of the table `name` of the target in force, or null where the reference runs. Use inside namespace graft,
// under HWY_ONCE.
#if defined(__x86_64__) && defined(GRAFT_SIMD_AVX2_ONLY)
#define GRAFT_SIMD_TABLE(name) (::graft::simd_target() == ::graft::SimdTarget::kAvx2 ? &::graft::N_AVX2::name : nullptr)
#elif defined(__x86_64__)
#define GRAFT_SIMD_TABLE(name)                                                     \
  (::graft::simd_target() == ::graft::SimdTarget::kAvx3   ? &::graft::N_AVX3::name \
   : ::graft::simd_target() == ::graft::SimdTarget::kAvx2 ? &::graft::N_AVX2::name \
                                                          : nullptr)
#elif defined(__aarch64__)
#define GRAFT_SIMD_TABLE(name) (::graft::simd_target() == ::graft::SimdTarget::kNeon ? &::graft::N_NEON::name : nullptr)
#else
#define GRAFT_SIMD_TABLE(name) (static_cast<decltype(&::graft::N_SCALAR::name)>(nullptr))
#endif
