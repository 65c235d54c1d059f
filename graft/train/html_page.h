#pragma once

#include <string>
#include <string_view>

#include "graft/base/json.h"

namespace graft {

// A page without any other file: `page` with its marks replaced. <!--TITLE-->: the title; /*STYLE*/: the style that graft's pages share
// (light and dark, cards, tiles, tables); /*HELPERS*/: the script they share ($, make, number, ticks, tickText); /*DATA*/null: the data, as JSON that
// cannot end the script.
std::string html_page(std::string_view page, std::string_view title, const Json& data);

}  // namespace graft
