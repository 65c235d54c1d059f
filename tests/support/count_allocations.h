#pragma once

// Counts operator new in allocation_count. The functions replace the program's: include this in one file of a test binary only.

#include <cstddef>
#include <cstdlib>
#include <new>

#include "graft/base/allocations.h"

// g++ at -O1 inlines one of a pair and not the other, then takes them for a mismatch; for the whole file, since it warns where they are used.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace graft::test {

inline void* counted_allocation_or_null(std::size_t bytes, std::size_t alignment) noexcept {
  allocation_count.add(static_cast<int64_t>(bytes));
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment + (bytes == 0 ? alignment : 0));
}
inline void* counted_allocation(std::size_t bytes, std::size_t alignment) {
  void* memory = counted_allocation_or_null(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace graft::test

void* operator new(std::size_t bytes) { return graft::test::counted_allocation(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return graft::test::counted_allocation(bytes, alignof(std::max_align_t)); }
// The standard library's own call the two above, a sanitizer's do not.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return graft::test::counted_allocation_or_null(bytes, alignof(std::max_align_t));
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return graft::test::counted_allocation_or_null(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return graft::test::counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return graft::test::counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
