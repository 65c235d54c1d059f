#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "graft/base/error.h"

namespace graft::fuzz {

// Bytes under a path, without a disk, for parsers that read files.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    GRAFT_CHECK(fd_ >= 0, "memfd_create failed");
    while (size > 0) {
      const ssize_t n = ::write(fd_, data, size);
      GRAFT_CHECK(n > 0, "write to memfd failed");
      data += n, size -= static_cast<size_t>(n);
    }
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace graft::fuzz
