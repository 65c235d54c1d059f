#pragma once

#include <string>

#include "graft/base/json.h"
#include "graft/train/html_page.h"

namespace graft {

// One self-contained page of the kernel suite: what it wins and loses against peers, every kernel under the roofs, bars for each domain, a sortable table, and
// times over sizes with their crossovers. `report` is what `graft kernel bench --json` prints, with, where they were measured,
//   "peers":  [{"kernel", "size", "threads", "engine", "median_ns", "ratio"?}]   engine "graft": graft's own time in turns with theirs
//   "sweep":  the table of `graft kernel tune --json`
//   "versions": {"numpy": "…", …}, "notes": ["…"], "date": "…"
// Throws Error where it is none of that.
std::string kernel_page(const Json& report);

extern const HtmlPage kKernelPage;  // the page around the data

}  // namespace graft
