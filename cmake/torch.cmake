# libtorch, as imported targets made by hand: the wheel's own TorchConfig.cmake insists on a whole
# CUDA toolkit even where only the CPU half is linked.
#
#   kvfs_use_torch(TARGET)         links libtorch to TARGET
#   kvfs_install_torch(TARGET)     installs what an installed TARGET needs of it
#
# The torch folder lies beside nvidia/ as in site-packages, in build/deps (scripts/setup) or where
# KVFS_TORCH_FROM_PREFIX finds it: the wheel's libraries look for each other that way.

function(kvfs_import_torch)
  if(TARGET kvfs_torch)
    return()
  endif()

  if(KVFS_TORCH_FROM_PREFIX)
    # torch.utils.cmake_prefix_path is .../torch/share/cmake.
    find_path(KVFS_TORCH_DIR lib/libtorch_cpu.so PATH_SUFFIXES . .. ../.. torch
      NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH)
    set(way_out "set CMAKE_PREFIX_PATH to python3 -c 'import torch; print(torch.utils.cmake_prefix_path)'")
  else()
    set(KVFS_TORCH_DIR "${KVFS_DEPS_DIR}/torch")
    set(way_out "run scripts/setup")
  endif()
  set(version_h "${KVFS_TORCH_DIR}/include/torch/headeronly/version.h")
  if(NOT EXISTS "${KVFS_TORCH_DIR}/lib/libtorch_cpu.so" OR NOT EXISTS "${version_h}")
    message(FATAL_ERROR "libtorch 2.11 or newer is not in '${KVFS_TORCH_DIR}': ${way_out}")
  endif()
  # Not the real path: a linked torch looks for nvidia/ beside the link.
  cmake_path(ABSOLUTE_PATH KVFS_TORCH_DIR NORMALIZE OUTPUT_VARIABLE root)
  string(REGEX REPLACE "/$" "" root "${root}")
  cmake_path(GET root PARENT_PATH site)

  file(STRINGS "${version_h}" version REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
  string(REGEX REPLACE "[^0-9;]" "" version "${version}")
  string(REPLACE ";" "." version "${version}")
  if(version VERSION_LESS 2.11)
    message(FATAL_ERROR "libtorch in '${root}' is ${version}, 2.11 is the oldest that works: ${way_out}")
  endif()
  message(STATUS "libtorch ${version}: ${root}")

  # IMPORTED, so that its headers are system headers and its folder goes into the run path.
  function(import NAME)
    add_library(kvfs::${NAME} SHARED IMPORTED GLOBAL)
    set_target_properties(kvfs::${NAME} PROPERTIES
      IMPORTED_LOCATION "${root}/lib/lib${NAME}.so"
      INTERFACE_INCLUDE_DIRECTORIES
        "${root}/include;${root}/include/torch/csrc/api/include")
  endfunction()
  import(c10)
  import(torch_cpu)

  file(GLOB nvidia_libs "${site}/nvidia/*/lib")
  add_library(kvfs_torch INTERFACE)
  target_link_libraries(kvfs_torch INTERFACE kvfs::torch_cpu kvfs::c10 Threads::Threads)
  # libcupti and libcudart are needed by libtorch_cpu itself, on machines without a GPU too.
  foreach(dir IN LISTS nvidia_libs)
    target_link_options(kvfs_torch INTERFACE "LINKER:-rpath-link,${dir}")
  endforeach()

  if(KVFS_CUDA)
    import(c10_cuda)
    # Nothing but its registration names torch_cuda: the linker must not drop it.
    target_link_libraries(kvfs_torch INTERFACE kvfs::c10_cuda
      "-Wl,--no-as-needed,${root}/lib/libtorch_cuda.so,--as-needed")
    target_compile_definitions(kvfs_torch INTERFACE KVFS_CUDA=1)
    target_compile_options(kvfs_torch INTERFACE
      $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
      $<$<COMPILE_LANGUAGE:CUDA>:--expt-extended-lambda>)
    # libtorch's CUDA headers want cuBLAS's and others'. The toolkit's are nvcc's own; a toolkit
    # without them is filled up from the wheels.
    set(cuda_include "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}")
    if(NOT EXISTS "${cuda_include}/cublas_v2.h")
      list(APPEND cuda_include "${site}/nvidia/cu13/include")
    endif()
    target_include_directories(kvfs_torch SYSTEM INTERFACE ${cuda_include})
    find_package(CUDAToolkit REQUIRED)
    target_link_libraries(kvfs_torch INTERFACE CUDA::cudart)
    # cuBLAS's own interface, of the library that libtorch brings.
    file(GLOB cublas_lt "${site}/nvidia/*/lib/libcublasLt.so.*")
    target_link_libraries(kvfs_torch INTERFACE ${cublas_lt})
  endif()
endfunction()

function(kvfs_use_torch TARGET)
  kvfs_import_torch()
  # PRIVATE: who links the room gets the libraries but never sees the headers.
  target_link_libraries(${TARGET} PRIVATE kvfs_torch)
endfunction()

# libtorch goes with the program, into lib/kvfs, laid out as in site-packages; one that was found by
# CMAKE_PREFIX_PATH is the system's and stays where it is.
function(kvfs_install_torch TARGET)
  if(KVFS_TORCH_FROM_PREFIX)
    set_target_properties(${TARGET} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
    return()
  endif()
  set(private lib/kvfs)
  foreach(package torch nvidia)
    install(DIRECTORY "${KVFS_DEPS_DIR}/${package}" DESTINATION ${private}
      FILES_MATCHING PATTERN "*.so*" PATTERN include EXCLUDE PATTERN share EXCLUDE)
  endforeach()
  cmake_path(RELATIVE_PATH private BASE_DIRECTORY ${CMAKE_INSTALL_BINDIR} OUTPUT_VARIABLE up)
  set_target_properties(${TARGET} PROPERTIES
    INSTALL_RPATH "$ORIGIN/${up}/torch/lib;$ORIGIN/${up}/nvidia/cu13/lib")
endfunction()
