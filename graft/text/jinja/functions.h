#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/value.h"

namespace graft::jinja {

// value|name(args). Filters that take a filter or test by name (map, select, …) look it up themselves.
using FilterFunction = Value (*)(Runtime&, const Value& value, const Args& args);
using TestFunction = bool (*)(Runtime&, const Value& value, const Args& args);

FilterFunction find_filter(std::string_view name);  // null if there is none
TestFunction find_test(std::string_view name);

// range, namespace, dict, raise_exception, strftime_now, …
std::vector<std::pair<std::string, Value>> make_globals(Runtime& runtime);

// The message of raise_exception; nothing may be put before it.
struct Raised {
  std::string message;
};

}  // namespace graft::jinja
