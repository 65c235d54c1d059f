#pragma once

#include <string>

#include "graft/base/error.h"

namespace graft::test {

// What the Error that `f` throws says, empty where it throws none.
template <typename F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace graft::test
