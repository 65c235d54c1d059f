#include <cstdlib>
#include <new>

#include "graft/base/allocations.h"
#include "graft/cli/app.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// `graft bench moe` reports what a step allocates. The standard library's other forms call these two; aligned ones are Buffers here.
void* operator new(std::size_t bytes) {
  graft::allocation_count.add(static_cast<int64_t>(bytes));
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

int main(int argc, char** argv) { return graft::run_graft(argc, argv); }
