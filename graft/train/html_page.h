#pragma once

#include <array>
#include <string>
#include <string_view>

#include "graft/base/json.h"

namespace graft {

// What is a page's own. Its styles follow the style that all pages share (light and dark, cards, tiles, tables); its body is what stands in <main>;
// its scripts follow the script that all share ($, make, number, ticks, tickText) and find the data in `report`.
struct HtmlPage {
  std::array<std::string_view, 2> styles;
  std::string_view body;
  std::array<std::string_view, 2> scripts;
};

// The page as text that needs no other file. `data` becomes JSON that cannot end the script.
std::string html_page(const HtmlPage& page, std::string_view title, const Json& data);

}  // namespace graft
