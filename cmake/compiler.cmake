# How every file of the house is compiled.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
# -g1: enough for a backtrace with lines; full types of libtorch's headers would double the link.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(KVFS_CCACHE ccache)
if(KVFS_CCACHE)
  # Without this sloppiness ccache passes every file that uses a precompiled header by.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${KVFS_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${KVFS_CCACHE})
endif()

# One baseline for all machines; kernels that need more ask for it by file (kvfs_simd_sources)
# and are chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-march=x86-64-v2>)
endif()

add_compile_options(
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion>"
  # Designated initializers leave fields out on purpose.
  "$<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 sees overlaps in "literal" + std::string that are not there (GCC bug 105651).
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>
    # ccache needs this to use a precompiled header.
    $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>
    $<$<COMPILE_LANGUAGE:CXX>:-Winvalid-pch>)
endif()
if(KVFS_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # These come out of the optimizer and change with its mood: shown, never fatal.
    foreach(warning maybe-uninitialized array-bounds stringop-overflow stringop-overread)
      add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-error=${warning}>)
    endforeach()
  endif()
endif()

if(KVFS_SANITIZE)
  set(sanitize -fsanitize=${KVFS_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${sanitize}>")
  add_link_options(-fsanitize=${KVFS_SANITIZE})
  if(KVFS_SANITIZE MATCHES thread)
    # It does not know fences; Asio's queues have locks beside theirs.
    add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)
    add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-error=tsan>)
  endif()
endif()

if(KVFS_FUZZ)
  set(fuzz -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${fuzz}>")
  add_link_options(-fsanitize=address,undefined)
endif()

# RUNPATH, not RPATH: LD_LIBRARY_PATH must be able to name another libtorch (scripts/pack-cuda).
add_link_options(LINKER:--enable-new-dtags)

if(KVFS_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80;90a" CACHE STRING "GPU architectures to compile for")
  endif()
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin "${KVFS_DEPS_DIR}/nvidia/cu13/bin")
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "KVFS_CUDA is on, but no nvcc is on the PATH or in /usr/local/cuda/bin: run "
      "KVFS_CUDA=1 scripts/setup, set CMAKE_CUDA_COMPILER, or build without KVFS_CUDA")
  endif()
  set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}" CACHE FILEPATH "nvcc's host compiler")
  # One runtime in the process: the one that libtorch loads.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
  # CMAKE_CXX_STANDARD holds for CUDA too, but CMake 3.25 must be told how to ask nvcc for C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo -DNDEBUG")
endif()
