# A room is a folder with one static library, named by its path: codec/chunk is codec_chunk.
# Includes are written from the repository's root: #include "codec/chunk/codec_table.h".
#
#   kvfs_room(NAME codec_chunk SOURCES raw.cpp zh.cpp DEPENDS codec_base kvfs::zstd)
#   kvfs_exe(NAME kvfsd SOURCES main.cpp DEPENDS daemon_room)
#   kvfs_test(NAME codec_chunk_test SOURCES raw_test.cpp DEPENDS codec_chunk)
#   kvfs_kernel_sources(gemv.cpp)
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

# The compiler's time is a user's first minutes: what is not hot is compiled quickly.
function(kvfs_cold TARGET)
  target_compile_options(${TARGET} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # At -O1 g++ 12 sees copies of strings leave their bounds where none is made.
    target_compile_options(${TARGET} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds>)
  endif()
endfunction()

# Without SOURCES the room is headers only. COLD: nothing in it is hot. NETWORK: its files see Asio and
# Beast, which are templates without end.
function(kvfs_room)
  kvfs_parse(ROOM "COLD;NETWORK" "" ${ARGN})
  if(NOT ROOM_SOURCES)
    add_library(${ROOM_NAME} INTERFACE)
    target_include_directories(${ROOM_NAME} INTERFACE "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${ROOM_NAME} INTERFACE ${ROOM_DEPENDS})
    return()
  endif()
  add_library(${ROOM_NAME} STATIC ${ROOM_SOURCES})
  target_include_directories(${ROOM_NAME} PUBLIC "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${ROOM_NAME} PUBLIC ${ROOM_DEPENDS})
  if(ROOM_NETWORK)
    kvfs_use_precompiled(${ROOM_NAME} network)
  elseif("kvfs::boost_json" IN_LIST ROOM_DEPENDS)
    kvfs_use_precompiled(${ROOM_NAME} json)
  else()
    kvfs_use_precompiled(${ROOM_NAME} house)
  endif()
  if(ROOM_COLD)
    kvfs_cold(${ROOM_NAME})
  endif()
endfunction()

function(kvfs_exe)
  kvfs_parse(EXE "" "" ${ARGN})
  add_executable(${EXE_NAME} ${EXE_SOURCES})
  kvfs_use_precompiled(${EXE_NAME} house)
  target_include_directories(${EXE_NAME} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${EXE_NAME} PRIVATE ${EXE_DEPENDS})
endfunction()

# One executable of GoogleTests, in bin/tests, with a main of its own; every TEST is a test of CTest,
# run from the repository's root. ONE_PROCESS runs them all in one go, for fixtures that are dear to
# build (a loaded model). PROPERTIES go to set_tests_properties: LABELS slow, RUN_SERIAL ON, ...
# The tests see KVFS_REPO_DIR, KVFS_DEPS_DIR and KVFS_BIN_DIR as string literals.
function(kvfs_test)
  kvfs_parse(TEST "ONE_PROCESS" "PROPERTIES" ${ARGN})
  add_executable(${TEST_NAME} ${TEST_SOURCES})
  kvfs_use_precompiled(${TEST_NAME} tests)
  kvfs_cold(${TEST_NAME})
  target_include_directories(${TEST_NAME} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${TEST_NAME} PRIVATE ${TEST_DEPENDS} kvfs::gmock_main)
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

# Files of the calling room whose loops are worth -O3, which the rest of the house does without.
function(kvfs_kernel_sources)
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS $<$<CONFIG:RelWithDebInfo>:-O3>)
endfunction()

# Such files that are compiled for more than the baseline. They pass the precompiled header by: it
# was compiled for the baseline and could not be used.
function(kvfs_simd_sources)
  cmake_parse_arguments(SIMD "" "" "FLAGS;SOURCES" ${ARGN})
  kvfs_kernel_sources(${SIMD_SOURCES})
  set_property(SOURCE ${SIMD_SOURCES} APPEND PROPERTY COMPILE_OPTIONS ${SIMD_FLAGS})
  set_property(SOURCE ${SIMD_SOURCES} PROPERTY SKIP_PRECOMPILE_HEADERS ON)
endfunction()
