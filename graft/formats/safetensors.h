#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/dtype.h"
#include "graft/base/file.h"

namespace graft {

// Files of tensors: u64 little-endian N, N bytes of JSON, data (https://github.com/huggingface/safetensors).

using Metadata = std::map<std::string, std::string>;

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;   // row-major, outermost first; empty for a scalar
  uint64_t begin = 0, end = 0;  // bytes in the file
  uint64_t num_bytes() const { return end - begin; }
  int64_t num_elements() const;  // 1 for a scalar
};

struct SafetensorsHeader {
  std::string path;                 // for messages
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  Metadata metadata;
  uint64_t data_begin = 0, file_size = 0;
  const TensorInfo* find(std::string_view name) const;  // null if there is none

 private:
  friend SafetensorsHeader parse_safetensors_header(std::string_view, uint64_t, std::string_view);
  std::vector<uint32_t> by_name_;
};

// Parses and checks the JSON of a header (the N bytes without the length) of a file of `file_size` bytes: names once,
// known dtypes, no hole, no overlap, each size what dtype and shape say, the last tensor ends where the file ends.
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t file_size, std::string_view where);

// Reads the header and nothing else of a file. Throws Error for everything the reference reader refuses, in its order,
// and for a name that occurs twice.
SafetensorsHeader read_safetensors_header(const std::string& path);

// A mapped file. Its tensors are views into the mapping: unaligned, and gone with it.
class SafetensorsFile {
 public:
  SafetensorsFile() = default;
  explicit SafetensorsFile(const std::string& path);
  const SafetensorsHeader& header() const { return header_; }
  const std::string& path() const { return header_.path; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const Metadata& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const { return header_.find(name); }
  const TensorInfo& at(std::string_view name) const;  // Error naming file and tensor if there is none
  std::span<const std::byte> bytes(const TensorInfo& info) const {
    return file_.bytes().subspan(info.begin, info.num_bytes());
  }
  void drop(const TensorInfo& info) const {
    file_.drop(info.begin, info.num_bytes());
  }                                                            // its pages leave the resident set
  std::vector<float> read_f32(std::string_view name) const;    // a copy, widened or rounded
  std::vector<int64_t> read_i64(std::string_view name) const;  // any integer type or BOOL

 private:
  SafetensorsHeader header_;
  MappedFile file_;
};

int64_t num_elements(std::span<const int64_t> shape);
std::string shape_text(std::span<const int64_t> shape);  // "[16, 24]"

// Widens (or, from F64, rounds) to f32. Takes F64, F32, F16, BF16, the F8 types and F4 (low nibble first); Error for
// integers, BOOL, C64 and the F6 types, whose packing no tool agrees on. `where` names file and tensor for the message.
// out: bytes.size() * 8 / dtype_bits(dtype) values.
void read_as_f32(std::span<const std::byte> bytes, DType dtype, float* out, std::string_view where = "tensor");

// Rounds f32 to nearest even into F32, BF16, F16 or F64. out: n elements of dtype.
void write_from_f32(const float* values, int64_t n, DType dtype, std::byte* out);

struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
template <typename T>
std::span<const std::byte> as_bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

// Writes tensors one at a time, so that one at most is in memory. The file appears whole on commit and not before.
//   SafetensorsWriter writer(path, {{"b", kF32, {2, 3}}, …});   // bytes are ignored here
//   for (const TensorInfo& info : writer.tensors()) writer.write(info.name, bytes_of(info));
//   writer.commit();
// tensors() is the order of the file, the reference writer's: dtype descending, then name. A tensor may be written in
// parts. `metadata` always gets format = pt, which some readers demand.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, const std::vector<TensorToWrite>& tensors, Metadata metadata = {});
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  void write(std::string_view name, std::span<const std::byte> bytes);
  void commit();

 private:
  std::string path_;
  std::vector<TensorInfo> tensors_;
  size_t next_ = 0;       // tensor being written
  uint64_t written_ = 0;  // bytes of it
  AtomicFile file_;
};

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const Metadata& metadata = {});

}  // namespace graft
