#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/json.h"
#include "graft/text/jinja/syntax.h"

namespace graft::jinja {

// JSON as template values; every string is marked with `source` unless it is null.
Value from_json(Runtime& runtime, const Json& json, const int32_t* source, int depth = 0);

struct RenderResult {
  std::string text;
  std::vector<Mark> marks;
};

// Runs a template once. Throws graft::Error with file and line; raise_exception's message stands alone.
RenderResult run(const Template& source, Runtime& runtime, const std::vector<std::pair<std::string, Value>>& variables);

}  // namespace graft::jinja
