#include "graft/base/process.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

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

void drop_startup_pages() {
  if (status_bytes("TracerPid:") != 0) return;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void*) {
        const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const auto& segment = object->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
          const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr + page - 1) / page * page;
          const uintptr_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz) / page * page;
          if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
        return 0;
      },
      nullptr);
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
}

}  // namespace graft
