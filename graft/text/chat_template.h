#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/json.h"

namespace graft {

struct Rendered {
  std::string text;
  std::vector<std::pair<int64_t, int64_t>> spans;  // byte ranges inside {% generation %}, in order
  bool marks_generation = false;                   // the template contains {% generation %}
};

// A chat template in the Jinja that published models use, compiled once. The interpreter reaches nothing but the values it
// is given; steps, output size and nesting are limited. Immutable; safe to share between threads.
class ChatTemplate {
 public:
  static ChatTemplate compile(std::string_view source, std::string_view where);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables` is one object: messages, tools, add_generation_prompt, bos_token, … Throws graft::Error for raise_exception
  // (with its message), undefined names, wrong types, exceeded limits.
  Rendered render(const Json& variables) const;
  const std::string& source() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
