// The first byte chooses .jsonl, .json or .txt; the rest is the file.
#include <algorithm>
#include <cstdint>
#include <string>

#include "graft/base/error.h"
#include "graft/formats/jsonl.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  if (size == 0) return 0;
  static constexpr const char* kKinds[] = {"jsonl", "json", "txt"};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int64_t lines = 1 + std::count(text.begin(), text.end(), '\n');
  try {
    RowFaults faults;
    for (const JsonRow& row : parse_rows(text, kKinds[data[0] % 3], "fuzz", faults)) {
      if (!row.value.is_object() || row.line < 1 || row.line > lines) __builtin_trap();
    }
    faults.throw_if_any();
  } catch (const Error&) {
  }
  return 0;
}
