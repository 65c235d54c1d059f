#include "graft/base/process.h"

#include <sys/resource.h>

#include <cstdio>
#include <cstring>

namespace graft {
namespace {

// "VmHWM:     1234 kB"
int64_t status_bytes(const char* key) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (file == nullptr) return 0;
  char line[256];
  long long kilobytes = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, key, std::strlen(key)) == 0 &&
        std::sscanf(line + std::strlen(key), " %lld", &kilobytes) == 1) {
      break;
    }
  }
  std::fclose(file);
  return kilobytes * 1024;
}

}  // namespace

int64_t peak_resident_bytes() {
  if (const int64_t bytes = status_bytes("VmHWM:"); bytes > 0) return bytes;
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<int64_t>(usage.ru_maxrss) * 1024 : 0;
}

int64_t resident_bytes() { return status_bytes("VmRSS:"); }

}  // namespace graft
