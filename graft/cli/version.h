#pragma once

#include <string>

namespace graft {

// What --version prints: version, git id, compiler, libraries, CPU targets.
std::string version_text();

// What GRAFT_TRACE=dispatch prints: the variants that run on this CPU under the cap in force, and why each other one does not.
std::string dispatch_text();

}  // namespace graft
