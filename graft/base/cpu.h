#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// Instruction sets in rising order. sse4 has no fused multiply-add and stands outside the same-bits promise.
enum class CpuLevel { kScalar, kSse4, kAvx2, kAvx512, kAvx512Bf16, kAmx, kNeon };

std::string_view cpu_level_name(CpuLevel level);  // "scalar", "sse4", "avx2", "avx512", "avx512_bf16", "amx", "neon"

// What this CPU and kernel offer (AMX only after the system granted the tile state), ignoring any cap.
CpuLevel cpu_level_detected();
// The level in force: what is detected, capped by GRAFT_CPU (read once) or by set_cpu_level.
CpuLevel cpu_level();
// Every level in force on this machine and below it that has code of its own: what tests run through.
std::vector<CpuLevel> cpu_levels_available();

// Applies a cap by name, as GRAFT_CPU gives it; a cap above the CPU is no error; a name of another architecture or an
// unknown word throws Error. set_cpu_level is for tests.
void cap_cpu_level(std::string_view name);
void set_cpu_level(CpuLevel level);

// Caps the level for this thread while alive: what a router runs a call under. Never raises it. Other threads keep
// theirs; kernels choose their code on the thread that calls them.
class CpuLevelScope {
 public:
  explicit CpuLevelScope(CpuLevel level);
  ~CpuLevelScope();
  CpuLevelScope(const CpuLevelScope&) = delete;
  CpuLevelScope& operator=(const CpuLevelScope&) = delete;

 private:
  int kept_;
};

bool cpu_has_bf16_dot();  // cpu_level() is avx512_bf16 or amx
bool cpu_has_amx();
bool cpu_has_fma();  // hardware fused multiply-add (detected): selects which build of the scalar reference runs

std::string cpu_model_name();

// Bytes of a core's data cache, of its second level, and of the last level, which cores may share. Where the system does not tell: 32 KiB,
// 1 MiB, 32 MiB.
struct CacheSizes {
  int64_t l1 = int64_t{32} << 10, l2 = int64_t{1} << 20, last = int64_t{32} << 20;
};
const CacheSizes& cache_sizes();

// Cores this process may use: affinity and cgroup quota included; at least 1.
int usable_cores();

}  // namespace graft
