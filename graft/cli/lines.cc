#include "graft/cli/lines.h"

#include <cstdio>
#include <iostream>
#include <iterator>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/cli/common.h"

namespace graft {

std::vector<ParsedLine> read_lines(const std::string& path) {
  const std::string text =
      path == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_file(path, size_t{4} << 30);
  std::vector<ParsedLine> lines;
  size_t begin = 0;
  for (int64_t number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    ParsedLine parsed;
    try {
      JsonLimits limits;
      limits.allow_duplicate_keys = true;
      limits.keep_big_integers = true;  // tool-call arguments reach the template digit by digit
      parsed.value = parse_json(line, fmt::format("{}:{}", path, number), limits);
      GRAFT_CHECK(parsed.value.is_object(), "{}:{}: the line is {}, expected an object", path, number,
                  json_kind(parsed.value));
    } catch (const Error& e) {
      parsed.error = e.what();
    }
    lines.push_back(std::move(parsed));
  }
  return lines;
}

void answer_lines(const std::string& path, const std::function<Json(const Json& line, int64_t index)>& answer) {
  int64_t index = 0;
  const std::vector<ParsedLine> lines = read_lines(path);
  install_signal_handlers();  // answers given so far are written to their end
  for (const ParsedLine& line : lines) {
    throw_if_stopped();
    Json out;
    try {
      if (!line.error.empty()) throw Error(line.error);
      out = answer(line.value, index);
    } catch (const Error& e) {
      out = Json{{"error", e.what()}};
    }
    ++index;
    fmt::print("{}\n", out.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

}  // namespace graft
