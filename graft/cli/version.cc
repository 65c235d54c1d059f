#include "graft/cli/version.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "graft/base/cpu.h"

#ifndef GRAFT_VERSION
#define GRAFT_VERSION "0.1.0"
#endif
#ifndef GRAFT_GIT_ID
#define GRAFT_GIT_ID "unknown"
#endif

namespace graft {

std::string version_text() {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "g++ " __VERSION__;
#endif
  std::string levels;
  for (CpuLevel level : cpu_levels_available()) {
    levels += (levels.empty() ? "" : " ") + std::string(cpu_level_name(level));
  }
  return fmt::format(
      "graft {} ({})\ncompiler: {}\nlibraries: fmt {}.{}.{}, nlohmann-json {}.{}.{}\ncpu: {}; targets in force: {}",
      GRAFT_VERSION, GRAFT_GIT_ID, compiler, FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100,
      NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH, cpu_model_name(), levels);
}

std::string dispatch_text() {
  const CpuLevel detected = cpu_level_detected(), level = cpu_level();
  const bool arm = detected == CpuLevel::kNeon;
  // f32 code exists up to AVX-512; the levels above it add bf16 dot products for matrix products under --dtype bf16.
  const CpuLevel f32 = arm ? level : level == CpuLevel::kSse4 ? CpuLevel::kScalar : std::min(level, CpuLevel::kAvx512);
  const bool bf16 = cpu_has_bf16_dot();
  std::string text =
      fmt::format("dispatch: f32 and f16 arithmetic: {}\ndispatch: bf16 matrix products: {}\n", cpu_level_name(f32),
                  bf16 ? cpu_level_name(level) : "rounded to bf16, summed in f32 by the f32 variant");
  const std::vector<CpuLevel> all =
      arm ? std::vector{CpuLevel::kScalar, CpuLevel::kNeon}
          : std::vector{CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kAvx512Bf16, CpuLevel::kAmx};
  for (const CpuLevel other : all) {
    if (other == f32 || (bf16 && other == level)) continue;
    text += fmt::format("dispatch: {} does not run: {}\n", cpu_level_name(other),
                        other > detected ? "this CPU lacks it"
                        : other > level  ? "capped by GRAFT_CPU"
                                         : "a faster one runs");
  }
  return text;
}

}  // namespace graft
