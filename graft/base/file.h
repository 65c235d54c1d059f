#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace graft {

// Reads a whole file of at most max_bytes. Errors name the path and the cause (missing, a directory, no permission, too large).
std::string read_file(const std::string& path, size_t max_bytes = size_t{1} << 30);

// A read-only mapping of a whole file. Moves, never copies. An empty file gives an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }
  MappedFile& operator=(MappedFile&& other) noexcept;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the system that these bytes will not be read again, so that they leave the resident set.
  void drop(size_t offset, size_t length) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Writes a file that is never half written: a temporary name in the same folder, fsync, rename, fsync of the folder.
// The temporary is removed when the writer is destroyed without commit (an error, a full disk).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

// Holds a folder for one writer: a second one, in any process, gets an Error. Nothing is left behind, whatever ends the process.
// File systems without locks hold nothing.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

void write_file(const std::string& path, std::string_view content);  // AtomicFile in one call

bool path_exists(const std::string& path);
bool is_directory(const std::string& path);

}  // namespace graft
