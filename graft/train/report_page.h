#pragma once

namespace graft {

// The page around a report's data: HTML and script, for html_page.
extern const char kReportPage[];

}  // namespace graft
