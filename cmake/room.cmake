# A room is a folder with one static library, named by its path: codec/chunk is codec_chunk.
# Includes are written from the repository's root: #include "codec/chunk/codec_table.h".
#
#   kvfs_room(NAME codec_chunk SOURCES raw.cpp zh.cpp DEPENDS codec_base kvfs::zstd)
#   kvfs_exe(NAME kvfsd SOURCES main.cpp DEPENDS daemon_room)
#   kvfs_test(NAME codec_chunk_test SOURCES raw_test.cpp DEPENDS codec_chunk)
#   kvfs_simd_sources(FLAGS -mavx2 -mfma -mf16c SOURCES gemv_avx2.cpp)
#
# DEPENDS are rooms and the kvfs:: names of deps.cmake; kvfs_use_torch(TARGET) is in torch.cmake.

include(GoogleTest)

# PREFIX_NAME, PREFIX_SOURCES, PREFIX_DEPENDS and so on in the caller; a stray argument is an error.
macro(kvfs_parse PREFIX FLAGS MULTI)
  cmake_parse_arguments(${PREFIX} "${FLAGS}" "NAME" "SOURCES;DEPENDS;${MULTI}" ${ARGN})
  if(NOT ${PREFIX}_NAME OR ${PREFIX}_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "wanted NAME name SOURCES ... DEPENDS ..., got: ${ARGN}")
  endif()
endmacro()

# Without SOURCES the room is headers only.
function(kvfs_room)
  kvfs_parse(ROOM "" "" ${ARGN})
  if(ROOM_SOURCES)
    add_library(${ROOM_NAME} STATIC ${ROOM_SOURCES})
    set(visibility PUBLIC)
  else()
    add_library(${ROOM_NAME} INTERFACE)
    set(visibility INTERFACE)
  endif()
  target_include_directories(${ROOM_NAME} ${visibility} "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${ROOM_NAME} ${visibility} ${ROOM_DEPENDS})
endfunction()

function(kvfs_exe)
  kvfs_parse(EXE "" "" ${ARGN})
  add_executable(${EXE_NAME} ${EXE_SOURCES})
  target_include_directories(${EXE_NAME} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${EXE_NAME} PRIVATE ${EXE_DEPENDS})
endfunction()

# One executable of GoogleTests, in bin/tests, with a main of its own; every TEST is a test of CTest,
# run from the repository's root. ONE_PROCESS runs them all in one go, for fixtures that are dear to
# build (a loaded model). PROPERTIES go to set_tests_properties: LABELS slow, RUN_SERIAL ON, ...
# The tests see KVFS_REPO_DIR, KVFS_DEPS_DIR and KVFS_BIN_DIR as string literals.
function(kvfs_test)
  kvfs_parse(TEST "ONE_PROCESS" "PROPERTIES" ${ARGN})
  kvfs_exe(NAME ${TEST_NAME} SOURCES ${TEST_SOURCES}
    DEPENDS ${TEST_DEPENDS} kvfs::gmock kvfs::gtest kvfs::gmock_main)
  set_target_properties(${TEST_NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/tests")
  target_compile_definitions(${TEST_NAME} PRIVATE
    KVFS_REPO_DIR="${PROJECT_SOURCE_DIR}"
    KVFS_DEPS_DIR="${KVFS_DEPS_DIR}"
    KVFS_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  set(properties TIMEOUT 600 ${TEST_PROPERTIES})
  if(TEST_ONE_PROCESS)
    add_test(NAME ${TEST_NAME} COMMAND ${TEST_NAME} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(${TEST_NAME} PROPERTIES ${properties})
  else()
    gtest_discover_tests(${TEST_NAME}
      DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      PROPERTIES ${properties})
  endif()
endfunction()

# Files of the calling room that are compiled for more than the baseline. They pass the precompiled
# header by: it was compiled for the baseline and could not be used.
function(kvfs_simd_sources)
  cmake_parse_arguments(SIMD "" "" "FLAGS;SOURCES" ${ARGN})
  set_property(SOURCE ${SIMD_SOURCES} APPEND PROPERTY COMPILE_OPTIONS ${SIMD_FLAGS})
  set_property(SOURCE ${SIMD_SOURCES} PROPERTY SKIP_PRECOMPILE_HEADERS ON)
endfunction()
