# Libraries of a cross build without a foreign Debian architecture: everything that base, kernels and their tests need is headers, or
# (googletest) ships as source. The headers are linked into a folder of their own, because -I/usr/include would put the host's C library first.
set(include ${CMAKE_BINARY_DIR}/include)
file(MAKE_DIRECTORY ${include})
foreach(library fmt nlohmann hwy gtest)
  if(NOT EXISTS /usr/include/${library})
    message(FATAL_ERROR "/usr/include/${library} is missing: run ./dev setup")
  endif()
  file(CREATE_LINK /usr/include/${library} ${include}/${library} SYMBOLIC)
endforeach()

add_library(fmt::fmt INTERFACE IMPORTED)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)
add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
add_library(PkgConfig::HWY INTERFACE IMPORTED)
foreach(library fmt::fmt nlohmann_json::nlohmann_json PkgConfig::HWY)
  target_include_directories(${library} SYSTEM INTERFACE ${include})
endforeach()

if(GRAFT_TESTS)
  add_library(gtest_cross STATIC /usr/src/googletest/googletest/src/gtest-all.cc)
  target_include_directories(gtest_cross SYSTEM PUBLIC ${include} PRIVATE /usr/src/googletest/googletest)
  add_library(GTest::gtest ALIAS gtest_cross)
endif()
