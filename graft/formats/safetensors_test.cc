#include "graft/formats/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

using test::TempDir;

std::string file_of(std::string_view json, size_t data_bytes) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(static_cast<uint64_t>(json.size()) >> (8 * i));
  return file + std::string(json) + std::string(data_bytes, '\x01');
}

std::string error_of(const std::string& content) {
  const TempDir folder;
  write_file(folder / "x.safetensors", content);
  try {
    const SafetensorsFile file(folder / "x.safetensors");
  } catch (const Error& e) {
    return std::string(e.what()) + " | " + e.hint();
  }
  return "";
}

TEST(Safetensors, RefusesWhatTheReferenceReaderRefuses) {
  const auto tensor = [](const char* fields) { return fmt::format(R"({{"a.b":{{{}}}}})", fields); };
  struct Case {
    std::string content, expected;
  };
  const Case cases[] = {
      {"", "0 bytes"},
      {"1234567", "7 bytes"},
      {std::string("\0\0\0\0\0\0\0\x10", 8), "claims 1152921504606846976 bytes"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8) + "{}", "header claims"},
      {std::string("\x10\0\0\0\0\0\0\0", 8) + "{}", "the file has 2"},
      {file_of("", 0), "expected '{'"},
      {file_of(" {}", 0), "expected '{'"},
      {file_of("[]", 0), "expected '{'"},
      {file_of("{\"a\"", 0), "not valid JSON"},
      {file_of("{\"\xff\":1}", 0), "UTF-8"},
      {file_of(R"({"a":{}, "a":{}})", 0), "'a' occurs twice"},
      {file_of(R"({"a.b":3})", 0), "tensor 'a.b': header entry is the number 3"},
      {file_of(tensor(R"("shape":[1],"data_offsets":[0,4])"), 4), "dtype is missing"},
      {file_of(tensor(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), 4), "F31"},
      {file_of(tensor(R"("dtype":"F32","data_offsets":[0,4])"), 4), "shape is missing"},
      {file_of(tensor(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), 4), "shape holds the number 1.5"},
      {file_of(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4), "shape holds the number -1"},
      {file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"), 4), "data_offsets"},
      {file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[-4,4])"), 4), "data_offsets"},
      {file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551616])"), 4), "data_offsets"},
      {file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), 8), "belong to no tensor"},
      {file_of(tensor(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])"), 0) + "xx", "trailing"},
      {file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), 8), "takes 4 bytes"},
      {file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), 7), "1 missing"},
      {file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), 9), "1 trailing"},
      {file_of(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0), "below 2^64"},
      {file_of(tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), 0), "below 2^64"},
      {file_of(tensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), 2), "whole number of bytes"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}})",
           12),
       "'b': data_offsets begin at byte 4, expected 8, where 'a' ends (two tensors overlap)"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[0],"data_offsets":[8,4]}})",
           8),
       "before they begin"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__"},
      {file_of(R"({"__metadata__":[]})", 0), "__metadata__"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"},
      {"<!DOCTYPE html><html></html>", "html"},
      {"PK\x03\x04 and so on", "never unpickles"},
      {file_of(std::string("{\"a\":") + std::string(50000, '['), 0), "nested deeper"},
  };
  for (const Case& c : cases) {
    const std::string error = error_of(c.content);
    EXPECT_NE(error.find(c.expected), std::string::npos) << "expected '" << c.expected << "', got: " << error;
    EXPECT_NE(error.find("x.safetensors"), std::string::npos) << error;
  }
}

TEST(Safetensors, TakesEmptyTensorsScalarsPaddingAndAnyHeaderOrder) {
  EXPECT_EQ(error_of(file_of("{}", 0)), "");
  EXPECT_EQ(error_of(file_of(R"({"__metadata__":{"a":"b"}}   )", 0)), "");
  EXPECT_EQ(
      error_of(file_of(
          R"({"z":{"dtype":"U8","shape":[1],"data_offsets":[5,6]},"e":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]},
      "s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[1],"data_offsets":[4,5], "more":[1]}})",
          6)),
      "");
}

TEST(Safetensors, WritesInTheReferenceOrderAndReadsBack) {
  const TempDir folder;
  const std::string path = folder / "w.safetensors";
  const std::vector<float> f = {1, 2, 3, 4};
  const std::vector<int64_t> i = {7};
  const std::vector<uint16_t> h = {0x3F80};
  const std::vector<TensorToWrite> tensors = {{"b", DType::kF32, {2, 1}, std::as_bytes(std::span(f).first(2))},
                                              {"ä\"", DType::kBF16, {1}, as_bytes_of(h)},
                                              {"a", DType::kF32, {2}, std::as_bytes(std::span(f).last(2))},
                                              {"i", DType::kI64, {}, as_bytes_of(i)},
                                              {"e", DType::kU8, {0, 5}, {}}};
  write_safetensors(path, tensors, {{"step", "3"}});
  const SafetensorsFile file(path);
  std::vector<std::string> names;
  for (const TensorInfo& info : file.tensors()) names.push_back(info.name);
  EXPECT_EQ(names, (std::vector<std::string>{"i", "a", "b", "ä\"", "e"}));
  EXPECT_EQ(file.header().data_begin % 8, 0u);
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}, {"step", "3"}}));
  EXPECT_EQ(file.read_f32("b"), (std::vector<float>{1, 2}));
  EXPECT_EQ(file.read_f32("ä\""), (std::vector<float>{1}));
  EXPECT_EQ(file.read_i64("i"), i);
  EXPECT_EQ(file.find("nothing"), nullptr);
  EXPECT_THROW(file.read_i64("a"), Error);
  EXPECT_THROW(file.read_f32("i"), Error);
  EXPECT_THROW(file.at("nothing"), Error);

  const std::string before = read_file(path);
  EXPECT_THROW(write_safetensors(path, {tensors[0], tensors[0]}), Error);
  EXPECT_THROW(write_safetensors(path, {{"b", DType::kF32, {3}, tensors[0].bytes}}), Error);
  {
    SafetensorsWriter writer(path, {tensors[0], tensors[2]});
    EXPECT_THROW(writer.write("b", tensors[0].bytes), Error);  // a comes first
    writer.write("a", tensors[2].bytes.first(3));
    writer.write("a", tensors[2].bytes.subspan(3));
    EXPECT_THROW(writer.write("a", tensors[2].bytes.first(1)), Error);
    EXPECT_THROW(writer.commit(), Error);  // b is missing
  }
  EXPECT_EQ(read_file(path), before);  // no failure touches the old file
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()),
            1);
}

TEST(Safetensors, WidensEveryFloatType) {
  const auto widen = [](DType dtype, std::vector<uint8_t> bytes) {
    std::vector<float> out(bytes.size() * 8 / static_cast<size_t>(dtype_bits(dtype)));
    read_as_f32(as_bytes_of(bytes), dtype, out.data());
    return out;
  };
  EXPECT_EQ(widen(DType::kF8E4M3, {0x00, 0x01, 0x08, 0x38, 0x7E, 0xB8}),
            (std::vector<float>{0, 0x1p-9f, 0x1p-6f, 1, 448, -1}));
  EXPECT_TRUE(std::isnan(widen(DType::kF8E4M3, {0x7F})[0]));
  EXPECT_EQ(widen(DType::kF8E5M2, {0x01, 0x3C, 0x7B, 0x7C, 0xFC}),
            (std::vector<float>{0x1p-16f, 1, 57344, INFINITY, -INFINITY}));
  EXPECT_TRUE(std::isnan(widen(DType::kF8E5M2, {0x7D})[0]));
  EXPECT_EQ(widen(DType::kF8E4M3FNUZ, {0x01, 0x40, 0x7F}), (std::vector<float>{0x1p-10f, 1, 240}));
  EXPECT_TRUE(std::isnan(widen(DType::kF8E4M3FNUZ, {0x80})[0]));
  EXPECT_EQ(widen(DType::kF8E5M2FNUZ, {0x01, 0x40, 0x7F}), (std::vector<float>{0x1p-17f, 1, 57344}));
  EXPECT_EQ(widen(DType::kF8E8M0, {0x00, 0x7F, 0xFE}), (std::vector<float>{0x1p-127f, 1, 0x1p127f}));
  EXPECT_EQ(widen(DType::kF4, {0x10, 0x32, 0x54, 0x76, 0xFE}),
            (std::vector<float>{0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -4, -6}));
  EXPECT_THROW(widen(DType::kF6E2M3, {0, 0, 0}), Error);
  EXPECT_THROW(widen(DType::kI32, {0, 0, 0, 0}), Error);
  // Through write and back; rounding is tested where the conversions live (base).
  const std::vector<float> values = {0, -1.5f, 3.25f, 65504, -INFINITY};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bits(dtype)) / 8);
    write_from_f32(values.data(), static_cast<int64_t>(values.size()), dtype, bytes.data());
    std::vector<float> back(values.size());
    read_as_f32(bytes, dtype, back.data());
    EXPECT_EQ(back[1], -1.5f);
    EXPECT_EQ(back[4], -INFINITY);
    EXPECT_EQ(back[3], dtype == DType::kBF16 ? 65536 : 65504);
  }
  EXPECT_THROW(write_from_f32(values.data(), 1, DType::kI8, nullptr), Error);
}

TEST(Safetensors, RewritesTheFilesOfOtherToolsByteForByte) {
  GRAFT_NEEDS_FIXTURES();
  const TempDir folder;
  int files = 0;
  for (const char* part : {"peft", "golden"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(test::fixtures() + "/" + part)) {
      if (entry.path().extension() != ".safetensors" || entry.file_size() > 2'000'000) continue;
      const SafetensorsFile file(entry.path().string());
      std::vector<TensorToWrite> tensors;
      for (const TensorInfo& info : file.tensors()) {
        tensors.push_back({info.name, info.dtype, info.shape, file.bytes(info)});
      }
      if (file.metadata() != Metadata{{"format", "pt"}}) continue;
      write_safetensors(folder / "copy", tensors, file.metadata());
      ASSERT_EQ(read_file(folder / "copy"), read_file(entry.path().string())) << entry.path();
      ++files;
    }
  }
  EXPECT_GE(files, 10);
}

TEST(Safetensors, ManyTensorsAreReadInLinearTime) {
  std::string json = "{";
  for (int i = 0; i < 200'000; ++i) {
    json += fmt::format("{}\"tensor.number.{}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                        i == 0 ? "" : ",", i);
  }
  json += "}";
  const SafetensorsHeader header = parse_safetensors_header(json, 8 + json.size(), "many");
  EXPECT_EQ(header.tensors.size(), 200'000u);
  ASSERT_NE(header.find("tensor.number.123456"), nullptr);
}

}  // namespace
}  // namespace graft
