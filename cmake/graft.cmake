# Shared rules: flags, the layer helper, per-instruction-set files.

# Paths relative to the source tree, so that a clone elsewhere (or a second work tree) finds what the first compiled.
find_program(GRAFT_CCACHE ccache)
if(GRAFT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${GRAFT_CCACHE})
endif()

function(graft_flags target)
  # -ffp-contract=off: the order of arithmetic is a contract; fused multiply-adds are written, never found by the compiler.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror -ffp-contract=off -fno-math-errno)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  if(GRAFT_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${GRAFT_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${GRAFT_SANITIZE})
    if(GRAFT_SANITIZE MATCHES undefined)
      target_compile_options(${target} PRIVATE -fno-sanitize-recover=undefined)
      if(GRAFT_QUICK_SANITIZE)
        # Half the time to compile. What null, object-size and vptr report, the address sanitizer stops at too; alignment stays where bytes
        # become numbers.
        target_compile_options(${target} PRIVATE -fno-sanitize=null,object-size,vptr)
        target_compile_options(${target} PRIVATE -fno-sanitize-address-use-after-scope)  # a quarter of what is left
        if(NOT target MATCHES "^graft_(base|kernels|formats)$")
          target_compile_options(${target} PRIVATE -fno-sanitize=alignment)
        endif()
      endif()
    endif()
  endif()
  if(GRAFT_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)  # coverage of the libraries guides the fuzzer
  endif()
  # Sources of bench and graph repeat names in anonymous namespaces; of kernels only the rows share a batch (graft_layer). The same batches
  # under every preset: what one accepts, all do.
  if(GRAFT_UNITY AND NOT target MATCHES "^graft_(bench|graph)$")
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      target_compile_options(${target} PRIVATE -Wno-subobject-linkage)  # every file counts as included
    endif()
  endif()
  if(GRAFT_SIMD STREQUAL "avx2")
    target_compile_definitions(${target} PUBLIC GRAFT_SIMD_AVX2_ONLY=1)
  endif()
endfunction()

# graft_layer(NAME LINK …): library graft_NAME from graft/NAME/**.cc, and graft_NAME_test from the *_test.cc beside them.
#   *_fma.cc         x86: -mfma -mf16c (the scalar reference compiled a second time; see kernels/ref.h)
#   *_avx512bf16.cc  x86: AVX-512 with bf16 dot products
#   *_amx.cc         x86: AMX tiles
function(graft_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/graft/${name}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|/main)\\.cc$")
  if(name STREQUAL "kernels")  # families repeat names (kTable, table()), vector versions are compiled once per target
    set(alone ${sources} ${tests})
    list(FILTER alone EXCLUDE REGEX "_rows\\.cc$|_test\\.cc$")
    set_source_files_properties(${alone} ${CMAKE_SOURCE_DIR}/graft/kernels/math_test.cc ${CMAKE_SOURCE_DIR}/graft/kernels/simd_test.cc
      PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  if(GRAFT_QUICK_SANITIZE AND name STREQUAL "kernels")
    set(simd ${sources})
    list(FILTER simd INCLUDE REGEX "_simd\\.cc$")  # they load vectors from any address
    set_source_files_properties(${simd} PROPERTIES COMPILE_OPTIONS -fno-sanitize=alignment)
  endif()
  set(x86 OFF)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(x86 ON)
  endif()
  foreach(source ${sources})
    if(source MATCHES "_fma\\.cc$" AND x86)
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mfma;-mf16c" SKIP_PRECOMPILE_HEADERS ON)
    elseif(source MATCHES "_avx512bf16\\.cc$" AND x86)
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mfma" SKIP_PRECOMPILE_HEADERS ON)
    elseif(source MATCHES "_amx\\.cc$" AND x86)
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mamx-tile;-mamx-bf16;-mamx-int8;-mfma" SKIP_PRECOMPILE_HEADERS ON)
    elseif(source MATCHES "(_avx512bf16|_amx)\\.cc$")
      list(REMOVE_ITEM sources ${source})
    endif()
  endforeach()
  if(NOT sources)  # a layer without a source yet
    file(WRITE ${CMAKE_BINARY_DIR}/${name}_empty.cc "")
    set(sources ${CMAKE_BINARY_DIR}/${name}_empty.cc)
  endif()
  add_library(graft_${name} STATIC ${sources})
  add_library(graft::${name} ALIAS graft_${name})
  set_target_properties(graft_${name} PROPERTIES LINKER_LANGUAGE CXX EXPORT_NAME ${name})
  target_compile_features(graft_${name} PUBLIC cxx_std_20)
  target_link_libraries(graft_${name} ${ARG_LINK})
  graft_flags(graft_${name})
  if(GRAFT_QUICK_SANITIZE AND name STREQUAL "bench")
    set(tests)  # they measure
  elseif(GRAFT_KERNELS_TESTS AND name STREQUAL "kernels")
    list(FILTER tests INCLUDE REGEX "/(${GRAFT_KERNELS_TESTS})_test\\.cc$")
  endif()
  if(GRAFT_TESTS AND tests)
    add_executable(graft_${name}_test ${tests} ${CMAKE_SOURCE_DIR}/tests/support/main.cc)
    target_link_libraries(graft_${name}_test PRIVATE graft_${name} GTest::gtest)
    foreach(extra HWY PCRE2 UTF8PROC)
      if(TARGET PkgConfig::${extra})
        target_link_libraries(graft_${name}_test PRIVATE PkgConfig::${extra})
      endif()
    endforeach()
    graft_flags(graft_${name}_test)
    # Suites named Slow… take minutes: they run with GRAFT_SLOW set (./dev test --all) or when asked for by name.
    # Where tests run slowly, several processes share the long binaries; more than cores, since some shares are long.
    if((GRAFT_SANITIZE OR CMAKE_CROSSCOMPILING) AND name MATCHES "^(kernels|graph)$")
      foreach(shard RANGE 7)
        add_test(NAME ${name}_${shard} COMMAND graft_${name}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
        set_tests_properties(${name}_${shard} PROPERTIES ENVIRONMENT "GTEST_TOTAL_SHARDS=8;GTEST_SHARD_INDEX=${shard}")
      endforeach()
    else()
      add_test(NAME ${name} COMMAND graft_${name}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    endif()
  endif()
endfunction()

# The commit, for graft --version. Only version.cc sees it, so a commit recompiles one file.
function(graft_git_id)
  execute_process(COMMAND git describe --always --dirty WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE id
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  execute_process(COMMAND git rev-parse --git-path logs/HEAD WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE log
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(id)
    set_source_files_properties(graft/cli/version.cc PROPERTIES COMPILE_DEFINITIONS "GRAFT_GIT_ID=\"${id}\"")
  endif()
  get_filename_component(log "${log}" ABSOLUTE BASE_DIR ${CMAKE_SOURCE_DIR})
  if(log AND EXISTS ${log} AND NOT IS_DIRECTORY ${log})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${log})  # configure again after a commit
  endif()
endfunction()

# graft_install(LAYER…): what `cmake --install` places. The program with its demo (component graft), and for C++ programs the libraries of the
# layers, their headers and the files of find_package(graft) (component graft-dev). graft::graft stands for all layers.
function(graft_install)
  install(TARGETS graft RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT graft)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/examples/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/graft/examples COMPONENT graft)
  install(FILES ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT graft)

  set(package ${CMAKE_INSTALL_LIBDIR}/cmake/graft)
  add_library(graft_all INTERFACE)
  add_library(graft::graft ALIAS graft_all)
  set_target_properties(graft_all PROPERTIES EXPORT_NAME graft)
  list(TRANSFORM ARGN PREPEND graft_ OUTPUT_VARIABLE libraries)
  target_link_libraries(graft_all INTERFACE ${libraries})
  install(TARGETS graft_all ${libraries} EXPORT graft ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT graft-dev)
  install(EXPORT graft FILE graftTargets.cmake NAMESPACE graft:: DESTINATION ${package} COMPONENT graft-dev)
  include(CMakePackageConfigHelpers)
  configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/graftConfig.cmake.in ${CMAKE_BINARY_DIR}/graftConfig.cmake
    INSTALL_DESTINATION ${package} NO_SET_AND_CHECK_MACRO)
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/graftConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/graftConfig.cmake ${CMAKE_BINARY_DIR}/graftConfigVersion.cmake DESTINATION ${package}
    COMPONENT graft-dev)
  foreach(layer ${ARGN})
    # Not what only a layer's own sources and tests include.
    install(DIRECTORY ${CMAKE_SOURCE_DIR}/graft/${layer} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/graft COMPONENT graft-dev
      FILES_MATCHING PATTERN "*.h"
      REGEX "(_inl|_table|_test_data|_test_util|/test_support|/simd|/gemm_blocks|/attention_plan)\\.h$" EXCLUDE)
  endforeach()
endfunction()
