#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// What a row of a data file may be (docs: interop with OpenAI, TRL, alpaca and ShareGPT files).
enum class RowFormat : uint8_t {
  kText,                // {"text"}, or a whole .txt file
  kCompletion,          // {"prompt", "completion"}, strings
  kCompletionMessages,  // {"prompt", "completion"}, lists of messages
  kMessages,            // {"messages", "tools"?}
  kAlpaca,              // {"instruction", "input"?, "output", "system"?, "history"?}
  kShareGpt,            // {"conversations": [{"from", "value"}], "system"?, "tools"?}
};
std::string_view row_format_name(RowFormat format);
inline bool is_chat(RowFormat format) { return format >= RowFormat::kCompletionMessages; }

// Something wrong with a line, a row or a file. `where` is "file:line" or the file.
struct DataFault {
  std::string where, what, hint;
  bool fatal = true;  // training would fail; else a warning
};

// Faults in the order found. The first kMaxKept are kept, the rest counted, so that a hopeless file costs no memory.
struct DataFaults {
  static constexpr size_t kMaxKept = 1000;
  std::vector<DataFault> kept;
  int64_t num_fatal = 0, num_warnings = 0;
  void add(DataFault fault);
  // One Error that lists up to 50 fatal faults, a line each; nothing happens if there is none.
  void throw_if_fatal(std::string_view what) const;
};

// A conversation in the form that Hugging Face templates read: tool-call arguments are objects, content is a string or
// absent, roles are system, developer, user, assistant and tool, keys that are null are gone.
struct ChatRow {
  Json messages = Json::array();
  Json tools;                       // array, or null
  Json template_args;               // object of further template variables, or null
  std::vector<float> weights;       // per message; 0: not trained
  int64_t num_prompt_messages = 0;  // kCompletionMessages: how many of the messages are the prompt
};

struct DataRow {
  RowFormat format = RowFormat::kText;
  int32_t file = 0;
  int64_t line = 0;               // from 1, as an editor shows it; 0: the whole file is the row
  std::string prompt, text;       // kText: text; kCompletion: prompt and completion (text)
  std::unique_ptr<ChatRow> chat;  // the other formats
};

// Turns one parsed line into a row. Calls `fault(what, hint)` for each thing that is wrong, and returns false then.
// The format is told by the keys: messages, prompt and completion, conversations, instruction and output, text.
using OnRowFault = std::function<void(std::string what, std::string hint)>;
bool parse_row(Json&& value, DataRow* row, const OnRowFault& fault);

struct DataFile {
  std::string path;
  RowFormat format = RowFormat::kText;  // of its first good row; the others must have it too
  int64_t num_rows = 0;
};

struct DataRows {
  std::vector<DataFile> files;
  std::vector<DataRow> rows;
  DataFaults faults;
  std::string where(const DataRow& row) const;  // "train.jsonl:3"
};

// DATA of the command line resolved: a file, or a folder with train.jsonl and perhaps valid.jsonl.
struct DataPaths {
  std::string train, valid;   // valid is empty if there is none
  bool pretokenised = false;  // a .safetensors file
};
DataPaths find_data(const std::string& data);  // throws Error

// Reads a .jsonl, .json (an array, or a row per line) or .txt file. Blank lines are skipped but counted; only LF ends a
// line; a byte order mark is dropped. Wrong rows become faults, all of them; a file that cannot be read throws Error.
DataRows read_data_rows(const std::string& path);

}  // namespace graft
