# Headers of others that most files see, read by the compiler once for the whole house instead of
# once a file: half of what a build takes. A file still includes what it uses, so that it compiles
# with -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON as well.

set(house <algorithm> <array> <atomic> <charconv> <chrono> <cmath> <condition_variable> <cstdint>
  <cstring> <filesystem> <functional> <limits> <map> <memory> <mutex> <optional> <set> <span> <string>
  <string_view> <unordered_map> <utility> <vector> <tl/expected.hpp>)

# Makes the set NAME, for kvfs_use_precompiled.
function(kvfs_precompile NAME)
  cmake_parse_arguments(SET "" "" "HEADERS;DEPENDS" ${ARGN})
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cpp" CONTENT "")
  add_library(kvfs_precompiled_${NAME} OBJECT "${PROJECT_BINARY_DIR}/precompiled.cpp")
  target_link_libraries(kvfs_precompiled_${NAME} PRIVATE ${SET_DEPENDS})
  target_precompile_headers(kvfs_precompiled_${NAME} PRIVATE ${SET_HEADERS})
endfunction()

# The headers' libraries come with them: their macros must be the ones they were compiled with.
function(kvfs_use_precompiled TARGET NAME)
  target_precompile_headers(${TARGET} REUSE_FROM kvfs_precompiled_${NAME})
  get_target_property(libraries kvfs_precompiled_${NAME} LINK_LIBRARIES)
  target_link_libraries(${TARGET} PRIVATE ${libraries})
endfunction()

# A precompiled header costs every file its size: who has no use for JSON goes without.
kvfs_precompile(house HEADERS ${house} DEPENDS kvfs::expected)
kvfs_precompile(json HEADERS ${house} <boost/json.hpp> DEPENDS kvfs::expected kvfs::boost_json)
kvfs_precompile(network
  HEADERS ${house} <boost/json.hpp> <boost/asio/use_awaitable.hpp> <boost/beast/http.hpp>
  DEPENDS kvfs::expected kvfs::boost_json kvfs::boost)
kvfs_precompile(tests HEADERS ${house} <gmock/gmock.h> <gtest/gtest.h>
  DEPENDS kvfs::expected kvfs::gmock kvfs::gtest)
