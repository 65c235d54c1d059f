#pragma once

#include <string>

namespace graft {

// What --version prints: version, git id, compiler, libraries, CPU targets.
std::string version_text();

}  // namespace graft
