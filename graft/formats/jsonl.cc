#include "graft/formats/jsonl.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/file.h"

namespace graft {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kMaxRowBytes = size_t{1} << 30;
constexpr size_t kMaxTextBytes = size_t{1} << 33;  // of a .txt or a JSON array, which are read whole
constexpr size_t kMaxKept = 10'000, kMaxShown = 20;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_blank(std::string_view text) { return std::all_of(text.begin(), text.end(), is_space); }
int64_t count_lines(std::string_view text) { return std::count(text.begin(), text.end(), '\n'); }

// A cure for what is not UTF-8 text at all; empty if nothing speaks against it.
std::string_view not_text(std::string_view head) {
  const auto starts = [&](std::string_view with) { return head.substr(0, with.size()) == with; };
  if (starts("\x1f\x8b")) return "is compressed with gzip";
  if (starts("\x28\xb5\x2f\xfd")) return "is compressed with zstd";
  if (starts("PK\x03\x04")) return "is a zip archive";
  if (starts("PAR1")) return "is a Parquet file";
  if (starts("\xff\xfe") || starts("\xfe\xff")) return "is UTF-16";
  return {};
}

void check_text(std::string_view head, const std::string& path) {
  const std::string_view found = not_text(head);
  GRAFT_CHECK_HINT(found.empty(), found == "is UTF-16" ? "save it as UTF-8" : "unpack or convert it to .jsonl first",
                   "{}: {}, expected UTF-8 text", path, found);
}

// Reads a file line by line through a buffer: nothing is mapped, so a file that shrinks meanwhile does no harm.
class LineReader {
 public:
  explicit LineReader(std::string text) : buffer_(std::move(text)), at_end_(true) {}
  LineReader(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~LineReader() {
    if (fd_ >= 0) ::close(fd_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // What lies ahead, at least `bytes` of it if the file has them.
  std::string_view peek(size_t bytes) {
    while (!at_end_ && buffer_.size() - position_ < bytes) fill();
    return std::string_view(buffer_).substr(position_, bytes);
  }
  void skip(size_t bytes) { position_ += bytes; }

  std::string rest() {
    while (!at_end_) {
      GRAFT_CHECK(buffer_.size() - position_ <= kMaxTextBytes, "{}: has more than {} bytes; write it as .jsonl", path_,
                  kMaxTextBytes);
      fill();
    }
    const size_t from = std::exchange(position_, buffer_.size());
    return buffer_.substr(from);
  }

  // The next line without its LF; false at the end. The view holds until the next call.
  bool next(std::string_view& line) {
    size_t searched = position_;
    for (;;) {
      const size_t end = buffer_.find('\n', searched);
      if (end != std::string::npos || at_end_) {
        if (end == std::string::npos && position_ == buffer_.size()) return false;
        const size_t stop = end == std::string::npos ? buffer_.size() : end;
        line = std::string_view(buffer_).substr(position_, stop - position_);
        position_ = end == std::string::npos ? stop : stop + 1;
        return true;
      }
      const size_t done = buffer_.size() - position_;
      GRAFT_CHECK(done <= kMaxRowBytes, "{}: has a line of more than {} bytes", path_, kMaxRowBytes);
      fill();
      searched = position_ + done;
    }
  }

 private:
  void fill() {
    buffer_.erase(0, position_);
    position_ = 0;
    const size_t size = buffer_.size(),
                 more = std::max(kChunkBytes, size);  // doubling: a long line is not copied over and over
    buffer_.resize(size + more);
    ssize_t n = 0;
    do {
      n = ::read(fd_, buffer_.data() + size, more);
    } while (n < 0 && errno == EINTR);
    const int code = errno;
    buffer_.resize(size + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    GRAFT_CHECK(n >= 0, "{}: cannot read: {}", path_, std::strerror(code));
    at_end_ = n == 0;
  }

  int fd_ = -1;
  std::string path_;
  std::string buffer_;
  size_t position_ = 0;
  bool at_end_ = false;
};

int open_file(const std::string& path) {
  GRAFT_CHECK_HINT(path_exists(path), "check the path", "{}: does not exist", path);
  GRAFT_CHECK(!is_directory(path), "{}: is a folder, expected a file", path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  GRAFT_CHECK(fd >= 0, "{}: cannot open: {}", path, std::strerror(errno));
  return fd;
}

// The elements of a JSON array with the line each begins in, cut without parsing, so that a fault has a line.
class ArraySplitter {
 public:
  ArraySplitter(std::string text, int64_t first_line) : text_(std::move(text)), line_(first_line) {
    skip_space();
    ++at_;  // '['
  }

  // The next element. False at the end; `fault` then says what is wrong with it, if anything.
  bool next(std::string_view& element, int64_t& line, std::string& fault) {
    if (done_) return false;
    skip_space();
    if (at_ >= text_.size()) return end("the array is cut off: expected ']'", line, fault);
    if (text_[at_] == ']') {
      ++at_;
      const bool dangling = after_comma_;
      skip_space();
      line = line_;
      return end(dangling ? "a comma before ']'" : at_ < text_.size() ? "text after the array" : "", line, fault);
    }
    line = line_;
    const size_t begin = at_;
    int64_t depth = 0;
    bool in_string = false;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (in_string) {
        if (c == '\\') ++at_;
        in_string = c != '"';
        continue;
      }
      if (c == '"') in_string = true;
      if (depth <= 0 && (c == ',' || c == ']')) break;
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
    }
    at_ = std::min(at_, text_.size());
    element = std::string_view(text_).substr(begin, at_ - begin);
    line_ += count_lines(element);
    after_comma_ = at_ < text_.size() && text_[at_] == ',';
    if (after_comma_) ++at_;
    return true;
  }

 private:
  void skip_space() {
    for (; at_ < text_.size() && is_space(text_[at_]); ++at_) line_ += text_[at_] == '\n';
  }
  bool end(const char* what, int64_t& line, std::string& fault) {
    done_ = true;
    line = line_;
    fault = what;
    return false;
  }

  std::string text_;
  size_t at_ = 0;
  int64_t line_;
  bool after_comma_ = false, done_ = false;
};

// parse_json says "PATH: … at line K column C: …" of the row; the file's line stands in the fault's place already.
std::string shorten(std::string message, const std::string& path, int64_t row_line, int64_t& line) {
  line = row_line;
  if (message.compare(0, path.size() + 2, path + ": ") == 0) message.erase(0, path.size() + 2);
  constexpr std::string_view kAt = " at line ";
  const size_t at = message.find(kAt);
  if (at == std::string::npos) return message;
  int64_t inner = 1;
  const char* digits = message.data() + at + kAt.size();
  const auto [end, error] = std::from_chars(digits, message.data() + message.size(), inner);
  if (error != std::errc()) return message;
  line = row_line + inner - 1;
  return message.substr(0, at) + " at" + std::string(end);
}

}  // namespace

void RowFaults::add(int64_t line, std::string what, std::string hint) {
  ++count_;
  if (list_.size() >= kMaxKept) return;
  list_.push_back({line > 0 ? fmt::format("{}:{}", path_, line) : path_, std::move(what), std::move(hint)});
}

void RowFaults::throw_if_any() const {
  if (count_ == 0) return;
  if (count_ == 1) throw Error(fmt::format("{}: {}", list_[0].where, list_[0].what), list_[0].hint);
  std::string text = fmt::format("{}: {} faults", path_, count_);
  for (size_t i = 0; i < list_.size() && i < kMaxShown; ++i) {
    text += fmt::format("\n  {}: {}", list_[i].where, list_[i].what);
  }
  if (count_ > static_cast<int64_t>(kMaxShown)) {
    text += fmt::format("\n  … and {} more", count_ - static_cast<int64_t>(kMaxShown));
  }
  const auto hinted = std::find_if(list_.begin(), list_.end(), [](const RowFault& f) { return !f.hint.empty(); });
  throw Error(text, hinted == list_.end() ? "" : hinted->hint);
}

struct RowReader::Impl {
  std::string path;
  RowFaults faults;
  std::optional<LineReader> lines;
  std::optional<ArraySplitter> array;
  std::optional<JsonRow> single;  // a .txt, or one object over several lines
  int64_t line = 0;
  bool any = false, finished = false;

  void start(std::string_view kind) {
    check_text(lines->peek(4), path);
    if (lines->peek(3) == "\xEF\xBB\xBF") lines->skip(3);
    if (kind == "txt") {
      // Text is checked as the string that it becomes.
      single = JsonRow{1, Json{{"text", lines->rest()}}};
      try {
        single->value.dump();
      } catch (const nlohmann::json::exception&) {
        fail_hint("save it as UTF-8", "{}: is not UTF-8 text", path);
      }
      return;
    }
    if (kind != "json") return;
    size_t ahead = 0;
    std::string_view head;
    do {
      ahead += 4096;
      head = lines->peek(ahead);
    } while (is_blank(head) && head.size() == ahead && ahead < kChunkBytes);
    const auto first = std::find_if_not(head.begin(), head.end(), is_space);
    if (first == head.end()) return;
    if (*first == '[') {
      array.emplace(lines->rest(), 1);
    } else if (*first == '{') {
      // One object over many lines, unless the first line is whole.
      const auto begin = static_cast<size_t>(first - head.begin());
      const std::string_view more = lines->peek(kChunkBytes);
      const size_t end = more.find('\n', begin);
      try {
        parse_json(more.substr(begin, end == std::string_view::npos ? end : end - begin), path);
      } catch (const Error&) {
        const int64_t at = 1 + count_lines(more.substr(0, begin));
        const std::string text = lines->rest();
        line = at - 1;
        JsonRow row;
        if (take(text, at, row)) single = std::move(row);
        any = true;
      }
    }
  }

  // Parses one row; a fault is noted and false returned.
  bool take(std::string_view text, int64_t at, JsonRow& row) {
    any = true;
    try {
      JsonLimits limits;
      limits.keep_big_integers = true;  // tool-call arguments reach the template digit by digit
      row.value = parse_json(text, path, limits);
    } catch (const Error& e) {
      int64_t where = at;
      const std::string what = shorten(e.what(), path, at, where);
      const char* hint = !text.empty() && text.front() == '{' && text.find("'") < text.find('"')
                             ? "a Python dictionary is not JSON: write double quotes (json.dumps)"
                             : "a row is one whole JSON object; in .jsonl it stands on a line of its own";
      faults.add(where, what, hint);
      return false;
    }
    row.line = at;
    if (row.value.is_object()) return true;
    faults.add(at, fmt::format("the row is {}, expected an object", printable(json_kind(row.value))),
               row.value.is_array() && lines ? "a JSON array over several lines needs the ending .json" : "");
    return false;
  }

  bool next(JsonRow& row) {
    if (finished) return false;
    if (single) {
      row = std::move(*single);
      single.reset();
      finished = any = true;
      return true;
    }
    if (array) {
      std::string_view element;
      std::string fault;
      int64_t at = 0;
      while (array->next(element, at, fault)) {
        if (take(element, at, row)) return true;
      }
      if (!fault.empty()) faults.add(at, fault);
      any = any || !fault.empty();
      return finish();
    }
    for (std::string_view text; lines->next(text);) {
      ++line;
      if (is_blank(text)) continue;
      if (text.back() == '\r') text.remove_suffix(1);
      if (take(text, line, row)) return true;
    }
    return finish();
  }

  bool finish() {
    finished = true;
    if (!any) faults.add(0, "has no rows: the file is empty or blank", "give a file with one JSON object per line");
    return false;
  }
};

RowReader::RowReader(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->faults = RowFaults(path);
  impl_->lines.emplace(open_file(path), path);
  const size_t dot = path.rfind('.');
  impl_->start(dot == std::string::npos ? "" : path.substr(dot + 1));
}
RowReader::~RowReader() = default;
RowReader::RowReader(RowReader&&) noexcept = default;
RowReader& RowReader::operator=(RowReader&&) noexcept = default;

bool RowReader::next(JsonRow& row) { return impl_->next(row); }
RowFaults& RowReader::faults() { return impl_->faults; }
const std::string& RowReader::path() const { return impl_->path; }

std::vector<JsonRow> read_rows(const std::string& path) {
  RowReader reader(path);
  std::vector<JsonRow> rows;
  for (JsonRow row; reader.next(row);) rows.push_back(std::move(row));
  reader.faults().throw_if_any();
  return rows;
}

std::vector<JsonRow> parse_rows(std::string text, std::string_view kind, const std::string& where, RowFaults& faults) {
  RowReader::Impl reader;
  reader.path = where;
  reader.faults = RowFaults(where);
  reader.lines.emplace(std::move(text));
  reader.start(kind);
  std::vector<JsonRow> rows;
  for (JsonRow row; reader.next(row);) rows.push_back(std::move(row));
  faults = std::move(reader.faults);
  return rows;
}

}  // namespace graft
