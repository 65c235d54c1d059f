#include "graft/cli/version.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

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

}  // namespace graft
