// Replays the corpora of the fuzz targets, so that every build runs them once.
#include <gtest/gtest.h>

#include <filesystem>

#include "graft/base/file.h"
#include "tests/support/bad_case.h"

#define LLVMFuzzerTestOneInput fuzz_safetensors
#include "tests/fuzz/fuzz_safetensors.cc"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_config
#include "tests/fuzz/fuzz_config.cc"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_adapter
#include "tests/fuzz/fuzz_adapter.cc"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_jsonl
#include "tests/fuzz/fuzz_jsonl.cc"
#undef LLVMFuzzerTestOneInput

namespace graft {
namespace {

void replay(const char* name, int (*target)(const uint8_t*, size_t)) {
  const test::CapturedLog quiet;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string("tests/fuzz/corpus/") + name)) {
    const std::string input = read_file(entry.path().string());
    const auto* bytes = reinterpret_cast<const uint8_t*>(input.data());
    EXPECT_EQ(target(bytes, input.size()), 0);
    EXPECT_EQ(target(bytes, input.size() / 2), 0);  // and cut off
    ++files;
  }
  EXPECT_GE(files, 10) << name;
}

TEST(FuzzReplay, Safetensors) { replay("safetensors", fuzz_safetensors); }
TEST(FuzzReplay, Config) { replay("config", fuzz_config); }
TEST(FuzzReplay, Adapter) { replay("adapter", fuzz_adapter); }
TEST(FuzzReplay, Jsonl) { replay("jsonl", fuzz_jsonl); }

}  // namespace
}  // namespace graft
