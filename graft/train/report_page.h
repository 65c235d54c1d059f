#pragma once

namespace graft {

// The page around a report's data: HTML, style and script, without any other file. The marks <!--TITLE--> and /*DATA*/
// are replaced by report_html.
extern const char kReportPage[];

}  // namespace graft
