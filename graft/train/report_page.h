#pragma once

#include "graft/train/html_page.h"

namespace graft {

extern const HtmlPage kReportPage;  // the page around a report's data

}  // namespace graft
