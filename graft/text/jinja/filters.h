#pragma once

#include <span>
#include <string_view>

#include "graft/text/jinja/functions.h"
#include "graft/text/jinja/operations.h"

namespace graft::jinja {

struct FilterRow {
  std::string_view name;
  FilterFunction function;
};
std::span<const FilterRow> text_filters();
std::span<const FilterRow> list_filters();

}  // namespace graft::jinja
