#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace graft::test {

inline int& skipped_for_fixtures() {
  static int count = 0;
  return count;
}

// Folder with fixtures/ and oracle/: $GRAFT_SHARED, else ../shared. Empty if there is none.
inline std::string shared() {
  const char* given = std::getenv("GRAFT_SHARED");
  const std::string folder = given != nullptr ? given : "../shared";
  return std::filesystem::exists(folder + "/fixtures") ? folder : std::string();
}
inline std::string fixtures() { return shared().empty() ? std::string() : shared() + "/fixtures"; }

}  // namespace graft::test

// First line of a test that needs the fixtures.
#define GRAFT_NEEDS_FIXTURES()               \
  do {                                       \
    if (graft::test::fixtures().empty()) {   \
      ++graft::test::skipped_for_fixtures(); \
      GTEST_SKIP() << "no fixtures";         \
    }                                        \
  } while (false)
