#include "graft/formats/safetensors.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/json.h"

namespace graft {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit

bool multiply(uint64_t a, uint64_t b, uint64_t* product) { return !__builtin_mul_overflow(a, b, product); }

// Bytes of a shape, or nothing where the product leaves 64 bits or does not fill whole bytes.
std::optional<uint64_t> bytes_of(std::span<const int64_t> shape, DType dtype) {
  uint64_t elements = 1, bits = 0;
  for (const int64_t extent : shape) {
    if (extent < 0 || !multiply(elements, static_cast<uint64_t>(extent), &elements)) return std::nullopt;
  }
  if (elements > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  if (!multiply(elements, static_cast<uint64_t>(dtype_bits(dtype)), &bits) || bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

// What a file is that is not safetensors, by its first bytes: the cure for the usual accidents.
std::string cure_for(std::string_view head) {
  const auto starts = [&](std::string_view with) { return head.substr(0, with.size()) == with; };
  if (starts("version https://git-lfs")) return "it is a Git LFS pointer, not the weights: run `git lfs pull`";
  if (starts("<!DOCTYPE") || starts("<!doctype") || starts("<html") || starts("<HTML")) {
    return "it is a web page (html): the download failed or asked to log in; download the file itself";
  }
  if (starts("PK\x03\x04") || starts("\x80\x02") || starts("\x80\x03") || starts("\x80\x04") || starts("\x80\x05")) {
    return "it is a pickle under the name of safetensors, and graft never unpickles: convert it with the tool that "
           "made it";
  }
  if (starts("GGUF")) return "it is a GGUF file: give it the ending .gguf";
  return "the file is damaged, cut off or not safetensors: download it again";
}

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0) {
      const int code = errno;
      throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(code)),
                  code == ENOENT ? "check the path" : "");
    }
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string read_at(int fd, uint64_t offset, uint64_t size, const std::string& path) {
  std::string content(size, '\0');
  uint64_t done = 0;
  while (done < size) {
    const ssize_t n = ::pread(fd, content.data() + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    GRAFT_CHECK(n >= 0, "{}: cannot read: {}", path, std::strerror(errno));
    GRAFT_CHECK(n > 0, "{}: shrank while it was read", path);
    done += static_cast<uint64_t>(n);
  }
  return content;
}

// One entry of the header, offsets still relative to the data.
TensorInfo parse_info(const std::string& name, const Json& entry, std::string_view where) {
  const std::string tensor = fmt::format("{}: tensor '{}'", where, printable(name, 200));
  GRAFT_CHECK(entry.is_object(), "{}: header entry is {}, expected an object", tensor, json_kind(entry));
  const auto field = [&](const char* key) -> const Json& {
    const auto found = entry.find(key);
    GRAFT_CHECK(found != entry.end(), "{}: {} is missing in the header", tensor, key);
    return *found;
  };
  TensorInfo info;
  info.name = name;

  const Json& dtype = field("dtype");
  GRAFT_CHECK(dtype.is_string(), "{}: dtype is {}, expected a string", tensor, json_kind(dtype));
  const auto known = dtype_from_name(dtype.get_ref<const std::string&>());
  GRAFT_CHECK(known.has_value(), "{}: unknown dtype {}", tensor, json_kind(dtype));
  info.dtype = *known;

  const Json& shape = field("shape");
  GRAFT_CHECK(shape.is_array(), "{}: shape is {}, expected an array", tensor, json_kind(shape));
  info.shape.reserve(shape.size());
  for (const Json& extent : shape) {
    GRAFT_CHECK(extent.is_number_unsigned() && extent.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX),
                "{}: shape holds {}, expected whole numbers from 0", tensor, json_kind(extent));
    info.shape.push_back(extent.get<int64_t>());
  }

  const Json& offsets = field("data_offsets");
  GRAFT_CHECK(offsets.is_array() && offsets.size() == 2, "{}: data_offsets is {} of {} entries, expected two offsets",
              tensor, json_kind(offsets), offsets.size());
  for (const Json& offset : offsets) {
    GRAFT_CHECK(offset.is_number_unsigned(), "{}: data_offsets holds {}, expected whole numbers from 0", tensor,
                json_kind(offset));
  }
  info.begin = offsets[0].get<uint64_t>();
  info.end = offsets[1].get<uint64_t>();
  return info;
}

}  // namespace

int64_t num_elements(std::span<const int64_t> shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t TensorInfo::num_elements() const { return graft::num_elements(shape); }

const TensorInfo* SafetensorsHeader::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view key) { return tensors[i].name < key; });
  return at != by_name_.end() && tensors[*at].name == name ? &tensors[*at] : nullptr;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t file_size, std::string_view where) {
  const std::string in_header = fmt::format("{}: header", where);
  GRAFT_CHECK_HINT(!json.empty() && json.front() == '{', "the file is damaged or not safetensors: download it again",
                   "{}: begins with '{}', expected '{{'", in_header, printable(json.substr(0, 8)));
  const Json root = parse_json(json, in_header);

  SafetensorsHeader header;
  header.path = where;
  header.file_size = file_size;
  header.data_begin = 8 + json.size();
  header.tensors.reserve(root.size());
  for (const auto& [name, entry] : root.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(parse_info(name, entry, where));
      continue;
    }
    GRAFT_CHECK(entry.is_object(), "{}: __metadata__ is {}, expected an object of strings", in_header,
                json_kind(entry));
    for (const auto& [key, value] : entry.items()) {
      GRAFT_CHECK(value.is_string(), "{}: __metadata__ '{}' is {}, expected a string", in_header, printable(key),
                  json_kind(value));
      header.metadata[key] = value.get<std::string>();
    }
  }

  auto& tensors = header.tensors;
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  const std::string* before = nullptr;
  uint64_t at = 0;
  for (const TensorInfo& info : tensors) {
    const std::string tensor = fmt::format("{}: tensor '{}'", where, printable(info.name, 200));
    GRAFT_CHECK(info.begin == at, "{}: data_offsets begin at byte {}, expected {}, where {} ({})", tensor, info.begin,
                at, before == nullptr ? "the data begin" : fmt::format("'{}' ends", printable(*before, 200)),
                info.begin < at ? "two tensors overlap" : "bytes that belong to no tensor");
    GRAFT_CHECK(info.end >= info.begin, "{}: data_offsets end at byte {}, before they begin at {}", tensor, info.end,
                info.begin);
    const auto bytes = bytes_of(info.shape, info.dtype);
    GRAFT_CHECK(bytes.has_value(), "{}: shape {} of {} has no whole number of bytes below 2^64", tensor,
                printable(shape_text(info.shape)), dtype_name(info.dtype));
    GRAFT_CHECK(*bytes == info.end - info.begin, "{}: shape {} of {} takes {} bytes, its data_offsets hold {}", tensor,
                printable(shape_text(info.shape)), dtype_name(info.dtype), *bytes, info.end - info.begin);
    at = info.end;
    before = &info.name;
  }
  const uint64_t available = file_size - header.data_begin;  // the caller has checked that the header lies in the file
  if (at != available) {
    const std::string last =
        before == nullptr ? "the header" : fmt::format("the last tensor '{}'", printable(*before, 200));
    fail_hint(
        at > available ? "the file is cut off: download it again" : "bytes trail the last tensor: download it again",
        "{}: {} ends at byte {} of the data, the file has {} there ({} {})", where, last, at, available,
        at > available ? at - available : available - at, at > available ? "missing" : "trailing");
  }
  for (TensorInfo& info : tensors) info.begin += header.data_begin, info.end += header.data_begin;

  header.by_name_.resize(tensors.size());
  std::iota(header.by_name_.begin(), header.by_name_.end(), 0u);
  std::sort(header.by_name_.begin(), header.by_name_.end(),
            [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
  return header;
}

SafetensorsHeader read_safetensors_header(const std::string& path) {
  const Descriptor file(path);
  struct stat info {};
  GRAFT_CHECK(::fstat(file.get(), &info) == 0, "{}: cannot stat: {}", path, std::strerror(errno));
  GRAFT_CHECK(S_ISREG(info.st_mode), "{}: is {}, expected a file", path,
              S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  GRAFT_CHECK_HINT(size >= 8, "the file is empty or cut off: download it again",
                   "{}: has {} bytes, too small for the 8 bytes of the header's length", path, size);
  const std::string head = read_at(file.get(), 0, std::min<uint64_t>(size, 64), path);
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(head[static_cast<size_t>(i)]);
  GRAFT_CHECK_HINT(length <= kMaxHeaderBytes, cure_for(head), "{}: its header claims {} bytes, expected at most {}",
                   path, length, kMaxHeaderBytes);
  GRAFT_CHECK_HINT(length <= size - 8, cure_for(head),
                   "{}: its header claims {} bytes, the file has {} after the length", path, length, size - 8);
  return parse_safetensors_header(read_at(file.get(), 8, length, path), size, path);
}

SafetensorsFile::SafetensorsFile(const std::string& path) : header_(read_safetensors_header(path)), file_(path) {
  GRAFT_CHECK(file_.bytes().size() == header_.file_size, "{}: has {} bytes now, {} a moment ago: it is being written",
              path, file_.bytes().size(), header_.file_size);
}

const TensorInfo& SafetensorsFile::at(std::string_view name) const {
  const TensorInfo* info = find(name);
  GRAFT_CHECK(info != nullptr, "{}: tensor '{}' is missing", path(), printable(name, 200));
  return *info;
}

std::vector<float> SafetensorsFile::read_f32(std::string_view name) const {
  const TensorInfo& info = at(name);
  std::vector<float> values(static_cast<size_t>(info.num_elements()));
  read_as_f32(bytes(info), info.dtype, values.data(), fmt::format("{}: tensor '{}'", path(), name));
  return values;
}

std::vector<int64_t> SafetensorsFile::read_i64(std::string_view name) const {
  const TensorInfo& info = at(name);
  const auto n = static_cast<size_t>(info.num_elements());
  std::vector<int64_t> values(n);
  const std::byte* from = bytes(info).data();
  const auto widen = [&]<typename T>(T) {
    for (size_t i = 0; i < n; ++i) {
      T value;
      std::memcpy(&value, from + i * sizeof(T), sizeof(T));
      values[i] = static_cast<int64_t>(value);
    }
  };
  switch (info.dtype) {
    case DType::kBool:
    case DType::kU8: widen(uint8_t{}); break;
    case DType::kI8: widen(int8_t{}); break;
    case DType::kI16: widen(int16_t{}); break;
    case DType::kU16: widen(uint16_t{}); break;
    case DType::kI32: widen(int32_t{}); break;
    case DType::kU32: widen(uint32_t{}); break;
    case DType::kI64: widen(int64_t{}); break;
    case DType::kU64: {
      widen(int64_t{});
      for (const int64_t value : values) {
        GRAFT_CHECK(value >= 0, "{}: tensor '{}' holds a number of 2^63 or more", path(), printable(name, 200));
      }
      break;
    }
    default: fail("{}: tensor '{}' is {}, expected integers", path(), printable(name, 200), dtype_name(info.dtype));
  }
  return values;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<TensorToWrite>& tensors,
                                     Metadata metadata)
    : path_(path), file_(path) {
  metadata["format"] = "pt";
  for (const TensorToWrite& tensor : tensors) {
    const auto bytes = bytes_of(tensor.shape, tensor.dtype);
    GRAFT_CHECK(bytes.has_value(), "{}: tensor '{}': shape {} of {} has no whole number of bytes", path_,
                printable(tensor.name, 200), shape_text(tensor.shape), dtype_name(tensor.dtype));
    GRAFT_CHECK(tensor.name != "__metadata__", "{}: a tensor cannot be named __metadata__", path_);
    tensors_.push_back({tensor.name, tensor.dtype, tensor.shape, 0, *bytes});
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  // Names are told apart over all dtypes; map keys are sorted, so neighbours there are not enough.
  std::vector<std::string_view> names;
  for (const TensorInfo& info : tensors_) names.push_back(info.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  GRAFT_CHECK(twice == names.end(), "{}: tensor '{}' would be written twice", path_, printable(*twice, 200));

  std::string header = "{\"__metadata__\":" + Json(metadata).dump();
  uint64_t at = 0;
  for (TensorInfo& info : tensors_) {
    const uint64_t bytes = info.end;
    GRAFT_CHECK(bytes <= UINT64_MAX / 2 - at, "{}: the tensors take more than 2^63 bytes", path_);
    info.begin = at, info.end = at + bytes, at += bytes;
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", Json(info.name).dump(),
                          dtype_name(info.dtype), fmt::join(info.shape, ","), info.begin, info.end);
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');  // data start at a multiple of 8
  GRAFT_CHECK(header.size() <= kMaxHeaderBytes, "{}: the header takes {} bytes, expected at most {}", path_,
              header.size(), kMaxHeaderBytes);
  for (TensorInfo& info : tensors_) info.begin += 8 + header.size(), info.end += 8 + header.size();
  char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  file_.write(length, sizeof length);
  file_.write(header);
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto skip_whole = [&] {
    while (next_ < tensors_.size() && written_ == tensors_[next_].num_bytes() && tensors_[next_].name != name) {
      ++next_, written_ = 0;
    }
  };
  skip_whole();
  GRAFT_CHECK(next_ < tensors_.size() && tensors_[next_].name == name,
              "{}: tensor '{}' is written out of turn, expected '{}'", path_, printable(name, 200),
              next_ < tensors_.size() ? printable(tensors_[next_].name, 200) : "no more tensors");
  const uint64_t left = tensors_[next_].num_bytes() - written_;
  GRAFT_CHECK(bytes.size() <= left, "{}: tensor '{}' gets {} bytes, expected {}", path_, printable(name, 200),
              bytes.size(), left);
  file_.write(bytes.data(), bytes.size());
  written_ += bytes.size();
}

void SafetensorsWriter::commit() {
  while (next_ < tensors_.size() && written_ == tensors_[next_].num_bytes()) ++next_, written_ = 0;
  GRAFT_CHECK(next_ == tensors_.size(), "{}: tensor '{}' was not written", path_, printable(tensors_[next_].name, 200));
  file_.commit();
}

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors, const Metadata& metadata) {
  for (const TensorToWrite& tensor : tensors) {
    const auto bytes = bytes_of(tensor.shape, tensor.dtype);
    GRAFT_CHECK(bytes == tensor.bytes.size(), "{}: tensor '{}' has {} bytes for shape {} of {}", path,
                printable(tensor.name, 200), tensor.bytes.size(), shape_text(tensor.shape), dtype_name(tensor.dtype));
  }
  SafetensorsWriter writer(path, tensors, metadata);
  std::map<std::string_view, std::span<const std::byte>> bytes;
  for (const TensorToWrite& tensor : tensors) bytes[tensor.name] = tensor.bytes;
  for (const TensorInfo& info : writer.tensors()) writer.write(info.name, bytes[info.name]);
  writer.commit();
}

}  // namespace graft
