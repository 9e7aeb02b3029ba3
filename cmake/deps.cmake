# What Debian gives us, each under one name, kvfs::NAME; their headers are system headers.
# A new one: its -dev package in scripts/deps/apt.txt and a line here.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# kvfs_pkg(NAME SPEC): kvfs::NAME is what pkg-config knows as SPEC, such as "fuse3>=3.14".
function(kvfs_pkg NAME SPEC)
  pkg_check_modules(KVFS_${NAME} QUIET IMPORTED_TARGET GLOBAL ${SPEC})
  if(NOT KVFS_${NAME}_FOUND)
    message(FATAL_ERROR "pkg-config does not find ${SPEC}: run scripts/setup")
  endif()
  add_library(kvfs::${NAME} ALIAS PkgConfig::KVFS_${NAME})
endfunction()

kvfs_pkg(lmdb lmdb>=0.9.24)
kvfs_pkg(fuse3 fuse3>=3.14)
kvfs_pkg(zstd libzstd>=1.5)
kvfs_pkg(xxhash libxxhash>=0.8)
kvfs_pkg(pcre2 libpcre2-8>=10.40)
kvfs_pkg(cli11 CLI11>=2.1)
kvfs_pkg(spdlog spdlog>=1.10)
kvfs_pkg(toml tomlplusplus>=3.3)
kvfs_pkg(zip libzip>=1.7)
kvfs_pkg(zlib zlib>=1.2)
kvfs_pkg(systemd libsystemd>=252)
kvfs_pkg(utf8proc libutf8proc>=2.6)
kvfs_pkg(crypto libcrypto>=3.0)
kvfs_pkg(gtest gtest>=1.12)
kvfs_pkg(gmock gmock>=1.12)
kvfs_pkg(gtest_main gtest_main>=1.12)
kvfs_pkg(gmock_main gmock_main>=1.12)
kvfs_pkg(benchmark benchmark>=1.7)

# Boost and tl::expected ship no .pc files. kvfs::boost is the headers and what Asio and Beast need
# not compile anew in every file.
find_package(Boost 1.81 REQUIRED COMPONENTS json url)
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/boost.cpp"
  CONTENT "#include <boost/asio/impl/src.hpp>\n#include <boost/beast/src.hpp>\n")
add_library(kvfs_boost STATIC "${PROJECT_BINARY_DIR}/boost.cpp")
target_link_libraries(kvfs_boost PUBLIC Boost::headers Threads::Threads)
target_compile_definitions(kvfs_boost
  PUBLIC BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION)
add_library(kvfs::boost ALIAS kvfs_boost)
add_library(kvfs::boost_json ALIAS Boost::json)
add_library(kvfs::boost_url ALIAS Boost::url)
find_package(tl-expected 1.0 REQUIRED)
add_library(kvfs::expected ALIAS tl::expected)
add_library(kvfs::threads ALIAS Threads::Threads)
