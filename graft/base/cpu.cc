#include "graft/base/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "graft/base/error.h"

namespace graft {
namespace {

constexpr std::string_view kNames[] = {"scalar", "sse4", "avx2", "avx512", "avx512_bf16", "amx", "neon"};

#if defined(__x86_64__)
bool request_amx() {
  // Linux grants the tile state on request only (arch_prctl ARCH_REQ_XCOMP_PERM, XTILEDATA = 18).
  return ::syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

bool has_f16c() {  // clang 14 does not know the name in __builtin_cpu_supports
  unsigned eax = 1, ebx = 0, ecx = 0, edx = 0;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (ecx >> 29 & 1) != 0;
}

bool has_amx_bf16() {
  unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (edx >> 22 & 1) != 0 && (edx >> 24 & 1) != 0;  // AMX-BF16, AMX-TILE
}
#endif

CpuLevel detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return CpuLevel::kSse4;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512cd")) {
    return CpuLevel::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512bf16")) return CpuLevel::kAvx512;
  return has_amx_bf16() && request_amx() ? CpuLevel::kAmx : CpuLevel::kAvx512Bf16;
#elif defined(__aarch64__)
  return CpuLevel::kNeon;
#else
  return CpuLevel::kScalar;
#endif
}

CpuLevel parse_cap(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] != name) continue;
    const auto level = static_cast<CpuLevel>(i);
    const bool arm = cpu_level_detected() == CpuLevel::kNeon;
    if (level != CpuLevel::kScalar && arm != (level == CpuLevel::kNeon)) {
      fail_hint(
          "unset it, or use one of this CPU's: scalar, sse4, avx2, avx512, avx512_bf16, amx (x86); scalar, neon (Arm)",
          "GRAFT_CPU is '{}', an instruction set of another architecture", name);
    }
    return level;
  }
  fail("GRAFT_CPU is '{}', expected scalar, sse4, avx2, avx512, avx512_bf16, amx or neon", printable(name));
}

std::atomic<int>& in_force() {
  static std::atomic<int> level = [] {
    const char* cap = std::getenv("GRAFT_CPU");
    const CpuLevel detected = cpu_level_detected();
    if (cap == nullptr || *cap == '\0') return static_cast<int>(detected);
    return static_cast<int>(std::min(detected, parse_cap(cap)));
  }();
  return level;
}

constexpr int kNoCap = 1000;
thread_local int thread_cap = kNoCap;

// Cores' worth of time a control group grants, or infinity.
double cgroup_quota() {
  double quota = INFINITY;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    std::string max;
    double period = 0;
    if (v2 >> max >> period && max != "max" && period > 0) quota = std::min(quota, std::atof(max.c_str()) / period);
  }
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double us = 0, period = 0;
  if (q >> us && p >> period && us > 0 && period > 0) quota = std::min(quota, us / period);
  return quota;
}

}  // namespace

std::string_view cpu_level_name(CpuLevel level) { return kNames[static_cast<size_t>(level)]; }

CpuLevel cpu_level_detected() {
  static const CpuLevel level = detect();
  return level;
}

CpuLevel cpu_level() { return static_cast<CpuLevel>(std::min(in_force().load(std::memory_order_relaxed), thread_cap)); }

CpuLevelScope::CpuLevelScope(CpuLevel level) : kept_(thread_cap) {
  thread_cap = std::min(kept_, static_cast<int>(level));
}
CpuLevelScope::~CpuLevelScope() { thread_cap = kept_; }

std::vector<CpuLevel> cpu_levels_available() {
  std::vector<CpuLevel> levels = {CpuLevel::kScalar};
  const CpuLevel top = cpu_level();
  if (top == CpuLevel::kNeon) return {CpuLevel::kScalar, CpuLevel::kNeon};
  for (CpuLevel level : {CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kAvx512Bf16, CpuLevel::kAmx}) {
    if (level <= top) levels.push_back(level);
  }
  return levels;
}

void cap_cpu_level(std::string_view name) { set_cpu_level(std::min(cpu_level_detected(), parse_cap(name))); }
void set_cpu_level(CpuLevel level) { in_force().store(static_cast<int>(level), std::memory_order_relaxed); }

bool cpu_has_bf16_dot() { return cpu_level() == CpuLevel::kAvx512Bf16 || cpu_level() == CpuLevel::kAmx; }
bool cpu_has_amx() { return cpu_level() == CpuLevel::kAmx; }
bool cpu_has_fma() { return cpu_level_detected() >= CpuLevel::kAvx2; }

std::string cpu_model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(':') != std::string::npos) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = [] {
    CacheSizes found;
    for (int i = 0; i < 8; ++i) {
      const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i);
      std::ifstream level_file(folder + "/level"), type_file(folder + "/type"), size_file(folder + "/size");
      int level = 0;
      int64_t size = 0;
      std::string type, unit;
      if (!(level_file >> level) || !(type_file >> type) || !(size_file >> size) || type == "Instruction") continue;
      size_file >> unit;
      size *= unit == "K" ? 1 << 10 : unit == "M" ? 1 << 20 : 1;
      if (size <= 0) continue;
      if (level == 1) found.l1 = size;
      if (level == 2) found.l2 = size;
      if (level >= 2) found.last = size;
    }
    return found;
  }();
  return sizes;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                             : static_cast<int>(std::thread::hardware_concurrency());
  const double quota = cgroup_quota();
  if (quota < cores) cores = static_cast<int>(std::ceil(quota));
  return std::max(1, cores);
}

}  // namespace graft
