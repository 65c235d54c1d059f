#include "graft/base/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "graft/base/allocations.h"
#include "graft/base/error.h"

namespace graft {
namespace {

std::atomic<int64_t> created = 0;
constexpr size_t kHugePage = size_t{2} << 20;

// An address for `bytes` with whole huge pages from its first byte on: what was mapped too much goes back. Null: refused.
void* map_aligned(size_t bytes) {
  const auto map = [](size_t size) {
    return ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  if (bytes < kHugePage || bytes > SIZE_MAX - 2 * kHugePage) {
    void* data = map(bytes);
    return data == MAP_FAILED ? nullptr : data;
  }
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t size = (bytes + page - 1) / page * page;
  void* const wide = map(size + kHugePage);
  if (wide == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(wide);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(wide) % kHugePage) % kHugePage;
  if (head > 0) ::munmap(begin, head);
  ::munmap(begin + head + size, kHugePage - head);
  ::madvise(begin + head, size, MADV_HUGEPAGE);
  return begin + head;
}

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  created.fetch_add(1, std::memory_order_relaxed);
  if (bytes == 0) return;
  allocation_count.add(static_cast<int64_t>(bytes));
  void* data = map_aligned(bytes);
  if (data == nullptr) {
    bytes_ = 0;
    fail_hint("use a smaller model, batch or --max-length, or free memory",
              "out of memory: {} bytes were refused by the system", bytes);
  }
  data_ = static_cast<std::byte*>(data);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

int64_t Buffer::num_created() { return created.load(std::memory_order_relaxed); }

}  // namespace graft
