#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// One row of a data file. `line` is where it begins, counted from 1 as an editor does (blank lines count).
struct JsonRow {
  int64_t line = 0;
  Json value;  // always an object; the text of a .txt file is {"text": …}
};

struct RowFault {
  std::string where;  // "train.jsonl:3"
  std::string what, hint;
};

// Collects what is wrong with the rows of one file, so that one Error names all of it: "file:line: what".
class RowFaults {
 public:
  explicit RowFaults(std::string path = {}) : path_(std::move(path)) {}
  void add(int64_t line, std::string what, std::string hint = {});  // line 0: the file as a whole
  bool empty() const { return count_ == 0; }
  int64_t count() const { return count_; }
  const std::vector<RowFault>& list() const { return list_; }  // the first 10,000
  const std::string& path() const { return path_; }
  // The first 20 and the count.
  void throw_if_any() const;

 private:
  std::string path_;
  std::vector<RowFault> list_;
  int64_t count_ = 0;
};

// Reads the rows of a .jsonl (one JSON object per line; only LF ends a line, CR before it and a byte order mark are
// dropped, blank lines skipped), of a .json (an array of objects, one object, or lines as in .jsonl), or a .txt (one
// row). Holds one row at a time, but for the text of a JSON array. A row that is not a JSON object goes to faults() and
// is skipped; so does a file without rows.
//   for (JsonRow row; reader.next(row);) …
//   reader.faults().throw_if_any();
class RowReader {
 public:
  explicit RowReader(const std::string& path);  // Error: missing, a folder, compressed, UTF-16
  ~RowReader();
  RowReader(RowReader&&) noexcept;
  RowReader& operator=(RowReader&&) noexcept;
  bool next(JsonRow& row);
  RowFaults& faults();
  const std::string& path() const;

 private:
  friend std::vector<JsonRow> parse_rows(std::string, std::string_view, const std::string&, RowFaults&);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// All rows of a small file; Error with all faults.
std::vector<JsonRow> read_rows(const std::string& path);

// The same from text in memory, for tests and requests. kind: "jsonl", "json" or "txt".
std::vector<JsonRow> parse_rows(std::string text, std::string_view kind, const std::string& where, RowFaults& faults);

}  // namespace graft
