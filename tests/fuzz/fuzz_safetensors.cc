// A whole .safetensors file. Whatever is accepted can be read to its last byte.
#include <cstdint>

#include "graft/base/error.h"
#include "graft/formats/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  try {
    const fuzz::MemoryFile memory(data, size);
    const SafetensorsFile file(memory.path());
    uint64_t end = file.header().data_begin;
    for (const TensorInfo& info : file.tensors()) {
      if (info.begin != end || info.end < info.begin || info.end > size) __builtin_trap();  // holes or bytes outside
      end = info.end;
      if (file.find(info.name) != &info) __builtin_trap();
      try {
        if (dtype_is_float(info.dtype)) {
          file.read_f32(info.name);
        } else {
          file.read_i64(info.name);
        }
      } catch (const Error&) {
      }
    }
    if (end != size) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
