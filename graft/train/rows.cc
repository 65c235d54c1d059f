// Data files to rows: which files, which lines, every fault with its line.

#include "graft/train/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"

namespace graft {
namespace {

constexpr std::string_view kBom = "\xEF\xBB\xBF";

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

// Why a file is no text, or an empty view: found before its first line is taken for bad JSON.
std::string_view not_text(std::string_view bytes) {
  if (bytes.starts_with("\x1F\x8B")) return "is compressed with gzip, expected UTF-8 text; unpack it first";
  if (bytes.starts_with("PK\x03\x04")) return "is a zip archive, expected UTF-8 text; unpack it first";
  if (bytes.starts_with("\x28\xB5\x2F\xFD")) return "is compressed with zstd, expected UTF-8 text; unpack it first";
  if (bytes.starts_with("PAR1")) return "is a Parquet file, expected JSON lines; write it as .jsonl first";
  if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF"))
    return "is UTF-16, expected UTF-8; save it as UTF-8";
  return {};
}

// Offset of the first byte that is not UTF-8 (surrogates, overlong forms and code points past the last are not), or
// npos.
size_t first_bad_utf8(std::string_view text) {
  size_t i = 0;
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  while (i < text.size()) {
    const unsigned char c = byte(i);
    if (c < 0x80) {
      ++i;
      continue;
    }
    const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || i + length > text.size()) return i;
    for (size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    }
    const unsigned char second = byte(i + 1);
    if ((c == 0xE0 && second < 0xA0) || (c == 0xED && second > 0x9F) || (c == 0xF0 && second < 0x90) ||
        (c == 0xF4 && second > 0x8F)) {
      return i;
    }
    i += length;
  }
  return std::string_view::npos;
}

// parse_json says "WHERE: …"; the fault has its place already.
std::string without_place(std::string_view message, const std::string& where) {
  if (message.starts_with(where)) message.remove_prefix(where.size());
  while (!message.empty() && (message.front() == ':' || message.front() == ' ')) message.remove_prefix(1);
  return std::string(message);
}

class FileReader {
 public:
  FileReader(const std::string& path, DataRows& out) : path_(path), out_(out) {
    out_.files.push_back({path, RowFormat::kText, 0});
    file_ = static_cast<int32_t>(out_.files.size() - 1);
  }

  void read() {
    const MappedFile mapped(path_);
    std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    if (text.empty()) return;
    if (const std::string_view why = not_text(text); !why.empty()) {
      out_.faults.add({path_, std::string(why), {}});
      return;
    }
    if (text.starts_with(kBom)) text.remove_prefix(kBom.size());
    if (path_.ends_with(".txt")) {
      whole_text(text);
    } else if (path_.ends_with(".json") && text.find_first_not_of(" \t\r\n") != std::string_view::npos &&
               text[text.find_first_not_of(" \t\r\n")] == '[') {
      array(text);
    } else {
      lines(text);
    }
  }

 private:
  void whole_text(std::string_view text) {
    if (is_blank(text)) return;
    if (const size_t bad = first_bad_utf8(text); bad != std::string_view::npos) {
      const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(bad), '\n');
      out_.faults.add({fmt::format("{}:{}", path_, line),
                       fmt::format("byte 0x{:02X} is not UTF-8", static_cast<unsigned char>(text[bad])),
                       "save the file as UTF-8"});
      return;
    }
    DataRow row;
    row.file = file_;
    row.text = std::string(text);
    add(std::move(row));
  }

  void lines(std::string_view text) {
    for (int64_t line = 1; !text.empty(); ++line) {
      const size_t end = text.find('\n');
      const std::string_view one = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      if (!is_blank(one)) value(one, line);
    }
  }

  // Cuts the outermost array at its commas, so that each row has its own line and its own fault.
  void array(std::string_view text) {
    int64_t line = 1, begin_line = 0, depth = 0;
    size_t begin = std::string_view::npos;
    bool in_string = false, done = false, any = false;
    const auto finish = [&](size_t end, bool last) {
      if (begin != std::string_view::npos) {
        std::string_view one = text.substr(begin, end - begin);
        value(one.substr(0, one.find_last_not_of(" \t\r\n") + 1), begin_line);
        any = true;
      } else if (!last || any) {
        out_.faults.add({fmt::format("{}:{}", path_, line), "a comma without a row before or after it", {}});
      }
      begin = std::string_view::npos;
    };
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (c == '\n') ++line;
      if (in_string) {
        if (c == '\\') {
          ++i;
        } else if (c == '"') {
          in_string = false;
        }
        continue;
      }
      if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
      if (done) {
        out_.faults.add({fmt::format("{}:{}", path_, line), "more after the end of the array", {}});
        return;
      }
      if (depth == 0) {  // the bracket that was seen before
        depth = 1;
        continue;
      }
      if (depth == 1 && c == ',') {
        finish(i, false);
        continue;
      }
      if (depth == 1 && c == ']') {
        finish(i, true);
        done = true;
        continue;
      }
      if (begin == std::string_view::npos) {
        begin = i;
        begin_line = line;
      }
      if (c == '"') in_string = true;
      if (c == '[' || c == '{') ++depth;
      if ((c == ']' || c == '}') && depth > 1) --depth;
    }
    if (done) return;
    const int64_t from = begin != std::string_view::npos ? begin_line : line;
    out_.faults.add({fmt::format("{}:{}", path_, from), "the array does not end; is the file cut off?", {}});
  }

  void value(std::string_view text, int64_t line) {
    const std::string where = fmt::format("{}:{}", path_, line);
    Json json;
    try {
      json = parse_json(text, where);
    } catch (const Error& error) {
      out_.faults.add({where, without_place(error.what(), where), error.hint()});
      return;
    }
    DataRow row;
    row.file = file_;
    row.line = line;
    const bool good = parse_row(std::move(json), &row, [&](std::string what, std::string hint) {
      out_.faults.add({where, std::move(what), std::move(hint)});
    });
    if (good) add(std::move(row));
  }

  void add(DataRow&& row) {
    DataFile& file = out_.files[static_cast<size_t>(file_)];
    if (file.num_rows == 0) {
      file.format = row.format;
      first_line_ = row.line;
    } else if (row.format != file.format) {
      out_.faults.add({out_.where(row),
                       fmt::format("a {} row among {} rows (line {})", row_format_name(row.format),
                                   row_format_name(file.format), first_line_),
                       "keep one format per file"});
      return;
    }
    ++file.num_rows;
    out_.rows.push_back(std::move(row));
  }

  const std::string& path_;
  DataRows& out_;
  int32_t file_ = 0;
  int64_t first_line_ = 0;
};

}  // namespace

void DataFaults::add(DataFault fault) {
  ++(fault.fatal ? num_fatal : num_warnings);
  if (kept.size() < kMaxKept) kept.push_back(std::move(fault));
}

void DataFaults::throw_if_fatal(std::string_view what) const {
  constexpr int64_t kMaxShown = 50;
  if (num_fatal == 0) return;
  std::string text, hint;
  int64_t shown = 0;
  for (const DataFault& fault : kept) {
    if (!fault.fatal) continue;
    if (++shown > kMaxShown) break;
    text += fmt::format("{}{}: {}", num_fatal > 1 ? "\n  " : " ", fault.where, fault.what);
    if (hint.empty()) hint = fault.hint;
  }
  if (num_fatal > kMaxShown) text += fmt::format("\n  … and {} more", num_fatal - kMaxShown);
  throw Error(num_fatal > 1 ? fmt::format("{}: {} faults{}", what, num_fatal, text) : fmt::format("{}:{}", what, text),
              hint);
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

DataRows read_rows(const std::string& path) {
  DataRows rows;
  FileReader(path, rows).read();
  if (rows.rows.empty() && rows.faults.num_fatal == 0) {
    rows.faults.add(
        {path, "no rows: the file is empty", "a row is a line like {\"prompt\": \"…\", \"completion\": \"…\"}"});
  }
  return rows;
}

}  // namespace graft
