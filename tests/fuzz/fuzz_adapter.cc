// adapter_config.json, a zero byte, adapter_model.safetensors: loaded with and without a base, strictly and partially.
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "graft/base/error.h"
#include "graft/formats/adapter.h"
#include "graft/formats/inspect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  struct Folder {
    std::string path = (std::filesystem::temp_directory_path() / "graft-fuzz-XXXXXX").string();
    Folder() {
      if (::mkdtemp(path.data()) == nullptr) __builtin_trap();
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  const uint8_t* zero = std::find(data, data + size, uint8_t{0});
  const auto write = [&](const char* name, const uint8_t* begin, const uint8_t* end) {
    std::ofstream(folder.path + "/" + name, std::ios::binary).write(reinterpret_cast<const char*>(begin), end - begin);
  };
  write("adapter_config.json", data, zero);
  write("adapter_model.safetensors", std::min(zero + 1, data + size), data + size);
  const std::vector<BaseModule> modules = {{"model.layers.0.self_attn.q_proj", ModuleKind::kLinear, 16, 16},
                                           {"model.layers.0.self_attn.v_proj", ModuleKind::kLinear, 16, 8}};
  for (const bool with_base : {true, false}) {
    for (const bool partial : {true, false}) {
      try {
        LoadAdapterOptions options;
        if (with_base) options.modules = modules;
        options.partial = partial;
        for (const AdapterTensor& t : load_adapter(folder.path, options).tensors) {
          if (static_cast<int64_t>(t.a.size()) != t.rank * t.in || static_cast<int64_t>(t.b.size()) != t.out * t.rank) {
            __builtin_trap();
          }
        }
      } catch (const Error&) {
      }
    }
  }
  try {
    inspect_path(folder.path);
  } catch (const Error&) {
  }
  return 0;
}
