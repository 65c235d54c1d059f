#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// A byte range of rendered text that came out of a variable, not out of the template.
struct DataRange {
  int64_t begin = 0, end = 0;
  int32_t message = -1;  // index in `messages`, -1 for any other variable
  bool open = false;     // of the text named by RenderOptions::open_message
};

struct Rendered {
  std::string text;
  std::vector<std::pair<int64_t, int64_t>> spans;  // byte ranges inside {% generation %}, in order
  bool marks_generation = false;                   // the template contains {% generation %}
  // What data wrote, ascending, without overlap. Strings carry their origin through every operation of the template;
  // where one makes new text out of data (|upper, |indent, …), all of that text counts as data. Variables whose name
  // ends in
  // "_token" count as template.
  std::vector<DataRange> data;
};

struct RenderOptions {
  std::optional<int32_t> open_message;  // mark the content of this message (its last text part) with `open`
  int64_t max_steps = 10'000'000;       // about a second
};

// A chat template in the Jinja that published models use, compiled once: trim_blocks, lstrip_blocks, break and
// continue,
// {% generation %}, and Hugging Face's own tojson, as transformers sets Jinja up. Undefined names print as nothing and
// fail where they are used. The interpreter reaches nothing but the values it is given; values never change in place.
// Steps (10 million), memory (about 40 MiB beyond the input), output, nesting and recursion are limited. `strftime_now`
// reads the clock of SOURCE_DATE_EPOCH (UTC) if that is set. Immutable; safe to share between threads.
class ChatTemplate {
 public:
  // Throws graft::Error "WHERE:LINE: …" for syntax, unknown tags, filters and tests.
  static ChatTemplate compile(std::string_view source, std::string_view where);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables` is one object: messages, tools, add_generation_prompt, bos_token, … Integers beyond 64 bits come as
  // parse_json keeps them with JsonLimits::keep_big_integers. Throws graft::Error "WHERE:LINE: …" for undefined names,
  // wrong types and exceeded limits; what raise_exception says is the whole message, and the place is in the hint.
  Rendered render(const Json& variables, const RenderOptions& options = {}) const;
  const std::string& source() const;
  const std::string& where() const;
  bool reads_clock() const;  // names strftime_now

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
