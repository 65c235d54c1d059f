// Data files to rows: which files, which lines, every fault with its line.

#include "graft/train/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/jsonl.h"

namespace graft {
namespace {
bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }
}  // namespace

void DataFaults::add(DataFault fault) {
  ++(fault.fatal ? num_fatal : num_warnings);
  if (kept.size() < kMaxKept) kept.push_back(std::move(fault));
}

void DataFaults::throw_if_fatal(std::string_view what) const {
  constexpr int64_t kMaxShown = 50;
  constexpr size_t kMaxHints = 4;
  if (num_fatal == 0) return;
  std::string text;
  std::vector<std::string_view> hints;  // each once: the faults may be of several kinds
  int64_t shown = 0;
  for (const DataFault& fault : kept) {
    if (!fault.fatal) continue;
    if (++shown > kMaxShown) break;
    text += fmt::format("{}{}: {}", num_fatal > 1 ? "\n  " : " ", fault.where, fault.what);
    if (!fault.hint.empty() && hints.size() < kMaxHints &&
        std::find(hints.begin(), hints.end(), fault.hint) == hints.end()) {
      hints.push_back(fault.hint);
    }
  }
  if (num_fatal > kMaxShown) text += fmt::format("\n  … and {} more", num_fatal - kMaxShown);
  throw Error(num_fatal > 1 ? fmt::format("{}: {} faults{}", what, num_fatal, text) : fmt::format("{}:{}", what, text),
              fmt::format("{}", fmt::join(hints, "; ")));
}

std::string DataRows::where(const DataRow& row) const {
  const std::string& path = files[static_cast<size_t>(row.file)].path;
  return row.line > 0 ? fmt::format("{}:{}", path, row.line) : path;
}

DataPaths find_data(const std::string& data) {
  namespace fs = std::filesystem;
  DataPaths paths;
  GRAFT_CHECK(!data.empty(), "no data given");
  GRAFT_CHECK_HINT(path_exists(data), "give a .jsonl, .json, .txt or .safetensors file, or a folder with train.jsonl",
                   "{}: no such file or folder", printable(data, 400));
  if (!is_directory(data)) {
    paths.train = data;
    paths.pretokenised = data.ends_with(".safetensors");
    return paths;
  }
  // A folder with weights beside its rows is a model folder or a run's output more often than data, and which of them
  // would be meant (.safetensors is data too) cannot be told.
  std::vector<std::string> weights;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(data, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".gguf")) weights.push_back(name);
  }
  GRAFT_CHECK(!error, "{}: cannot list the folder: {}", printable(data, 400), error.message());
  std::sort(weights.begin(), weights.end());
  const fs::path folder(data);
  const auto found = [&](std::initializer_list<const char*> names) -> std::string {
    for (const char* name : names) {
      if (path_exists((folder / name).string())) return (folder / name).string();
    }
    return {};
  };
  paths.train = found({"train.jsonl", "train.json"});
  GRAFT_CHECK_HINT(!paths.train.empty(), "give the data file itself", "{}: a folder without train.jsonl",
                   printable(data, 400));
  GRAFT_CHECK_HINT(weights.empty(), "give the data file itself: " + paths.train,
                   "{}: a folder with {} beside train.jsonl, expected a folder of data only", printable(data, 400),
                   printable(weights[0]));
  paths.valid = found({"valid.jsonl", "valid.json"});
  return paths;
}

DataRows read_data_rows(const std::string& path) {
  DataRows out;
  out.files.push_back({path, RowFormat::kText, 0});
  DataFile& file = out.files.back();
  int64_t first_line = 0;
  RowReader reader(path);
  size_t taken = 0;
  const auto take_faults = [&] {  // in the order of the lines, between the faults of the rows' meaning
    for (const auto& list = reader.faults().list(); taken < list.size(); ++taken) {
      out.faults.add({list[taken].where, list[taken].what, list[taken].hint});
    }
  };
  const bool whole_file = path.ends_with(".txt");
  for (JsonRow json; reader.next(json);) {
    take_faults();
    DataRow row;
    row.line = whole_file ? 0 : json.line;
    if (whole_file && is_blank(json.value["text"].get_ref<const std::string&>())) continue;
    const bool good = parse_row(std::move(json.value), &row, [&](std::string what, std::string hint) {
      if (hint.empty()) hint = "correct the row or take it out";
      out.faults.add({out.where(row), std::move(what), std::move(hint)});
    });
    if (!good) continue;
    if (file.num_rows == 0) {
      file.format = row.format;
      first_line = row.line;
    } else if (row.format != file.format) {
      out.faults.add({out.where(row),
                      fmt::format("a {} row among {} rows (line {})", row_format_name(row.format),
                                  row_format_name(file.format), first_line),
                      "keep one format per file"});
      continue;
    }
    ++file.num_rows;
    out.rows.push_back(std::move(row));
  }
  take_faults();
  out.faults.num_fatal += reader.faults().count() - static_cast<int64_t>(taken);
  if (out.rows.empty() && out.faults.num_fatal == 0) out.faults.add({path, "has no rows: the file is blank", {}});
  return out;
}

}  // namespace graft
