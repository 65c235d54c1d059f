#pragma once

#include <functional>
#include <string>

#include "graft/base/json.h"

namespace graft {

// Answers a .jsonl file line by line: `answer` gets the parsed line and returns an object; what it throws becomes {"error": …}. Blank lines are
// skipped. A bad line never ends the command. "-" reads standard input.
void answer_lines(const std::string& path, const std::function<Json(const Json& line, int64_t index)>& answer);

// Lines of a file as parsed objects or the error text of each.
struct ParsedLine {
  Json value;
  std::string error;
};
std::vector<ParsedLine> read_lines(const std::string& path);

}  // namespace graft
