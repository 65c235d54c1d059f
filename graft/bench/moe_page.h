#pragma once

#include <string>

#include "graft/base/json.h"

namespace graft {

// One self-contained page of the 22 scenarios: time and spread of each, how it grows with batch, length and workers, and, where they were measured, the
// peers' ratios. `report` is what `graft bench moe --json` prints, with, from `./dev bench moe`,
//   "peers":    [{"id", "engine", "median_ns", "q1_ns", "q3_ns", "ratio"}]   engine "graft": graft's own time in turns with theirs
//   "versions": {"numpy": "…", …}, "notes": ["…"], "date": "…", "figures": [{"name", "value", "bar"}]
// Throws Error where it is none of that.
std::string moe_page(const Json& report);

}  // namespace graft
