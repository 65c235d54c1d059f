#include "graft/base/buffer.h"

#include <sys/mman.h>

#include <atomic>

#include "graft/base/error.h"

namespace graft {
namespace {

std::atomic<int64_t> created = 0;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  created.fetch_add(1, std::memory_order_relaxed);
  if (bytes == 0) return;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    bytes_ = 0;
    fail_hint("use a smaller model, batch or --max-length, or free memory",
              "out of memory: {} bytes were refused by the system", bytes);
  }
  data_ = static_cast<std::byte*>(data);
  if (bytes >= 4 * kHugePage) ::madvise(data_, bytes, MADV_HUGEPAGE);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

int64_t Buffer::num_created() { return created.load(std::memory_order_relaxed); }

}  // namespace graft
