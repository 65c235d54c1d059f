// Entry of every test binary. Tests that need the fixtures ask fixtures() and are skipped, with a count, where there are none.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/support/fixtures.h"
#include "tests/support/slow.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::string filter = testing::GTEST_FLAG(filter);
  if (!graft::test::runs_slow() && filter.find("Slow") == std::string::npos) {
    filter += filter.find('-') == std::string::npos ? "-Slow*" : ":Slow*";
    testing::GTEST_FLAG(filter) = filter;
  }
  const int result = RUN_ALL_TESTS();
  if (graft::test::skipped_for_fixtures() > 0) {
    std::printf("%d tests skipped: no fixtures (set GRAFT_SHARED to the folder that holds fixtures/ and oracle/)\n",
                graft::test::skipped_for_fixtures());
  }
  return result;
}
