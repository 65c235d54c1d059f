#include "graft/bench/kernel_page.h"

#include "graft/base/error.h"

namespace graft {

std::string kernel_page(const Json& report) {
  const bool whole = report.is_object() && report.contains("machine") && report["machine"].is_object() &&
                     report.contains("results") && report["results"].is_array();
  GRAFT_CHECK_HINT(whole, "graft kernel bench --json prints one",
                   "no report of kernels: expected \"machine\" and \"results\"");
  return html_page(kKernelPage, "Kernel suite – graft", report);
}

}  // namespace graft
