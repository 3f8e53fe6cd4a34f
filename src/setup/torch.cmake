# dds_import_torch(PROBLEM [GLOBAL]) defines the imported target dds::torch, LibTorch's headers and libraries wherever
# find_torch.cmake found them, with its version as the target's property DDS_TORCH_VERSION; PROBLEM is set to what is wrong, or
# to nothing. The library's own build and its installed package both find LibTorch with it.
#
# A LibTorch that the project has found already is taken as it is. Otherwise: a wheel's own TorchConfig.cmake insists on the
# CUDA toolkit that the wheel was built with, which compiling against libtorch_cpu does not need; so LibTorch is taken by its
# folders where they lie together, and by find_package(Torch) where they do not.
set(DDS_TORCH_ROOT "" CACHE PATH "A LibTorch, such as the torch folder of a Python wheel (holds include/ and lib/)")
if(EXISTS /dev/nvidia0)
  set(DDS_CUDA_DEFAULT ON)
endif()
option(DDS_CUDA "Link LibTorch's CUDA libraries too, where LibTorch has them" ${DDS_CUDA_DEFAULT})
include(${CMAKE_CURRENT_LIST_DIR}/find_torch.cmake)

function(dds_import_torch problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET dds::torch)
    return()
  endif()

  set(definitions "")
  if(TARGET torch AND TORCH_LIBRARIES)
    set(found "the project's own find_package(Torch)")
    set(libraries ${TORCH_LIBRARIES})
    set(includes ${TORCH_INCLUDE_DIRS})
  else()
    dds_find_torch()
    set(found "${DDS_TORCH_ROOT}")
    if(DDS_TORCH_ROOT)
      if(NOT EXISTS ${DDS_TORCH_ROOT}/lib/libtorch_cpu.so)
        set(${problem} "DDS_TORCH_ROOT=${DDS_TORCH_ROOT} holds no lib/libtorch_cpu.so: expected the torch folder of a wheel" PARENT_SCOPE)
        return()
      endif()
      set(libraries ${DDS_TORCH_ROOT}/lib/libtorch_cpu.so ${DDS_TORCH_ROOT}/lib/libc10.so)
      if(DDS_CUDA AND EXISTS ${DDS_TORCH_ROOT}/lib/libtorch_cuda.so)
        # Nothing refers to libtorch_cuda by name: it registers its kernels when it is loaded.
        list(APPEND libraries ${DDS_TORCH_ROOT}/lib/libc10_cuda.so
          -Wl,--push-state,--no-as-needed,${DDS_TORCH_ROOT}/lib/libtorch_cuda.so,${DDS_TORCH_ROOT}/lib/libtorch.so,--pop-state)
      endif()
      set(includes ${DDS_TORCH_ROOT}/include ${DDS_TORCH_ROOT}/include/torch/csrc/api/include)
      # Wheels before 2.7 mostly use the ABI from before C++11, in which std::string is another type.
      file(STRINGS ${DDS_TORCH_ROOT}/lib/libc10.so old_abi REGEX ${DDS_OLD_ABI} LIMIT_COUNT 1)
      if(old_abi)
        message(WARNING "${DDS_TORCH_ROOT} has the C++ ABI from before C++11. The library is built to match; fmt and GoogleTest "
                        "have to match too, and Debian's do not.")
        set(definitions _GLIBCXX_USE_CXX11_ABI=0)
      endif()
    else()
      # Visible wherever dds::torch itself is.
      if("GLOBAL" IN_LIST ARGN)
        set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
      endif()
      find_package(Torch QUIET)
      if(NOT Torch_FOUND)
        set(${problem} "No LibTorch: give -DDDS_TORCH_ROOT=/path/to/torch, the torch folder of a wheel, or \
-DTorch_DIR=/folder/of/TorchConfig.cmake" PARENT_SCOPE)
        return()
      endif()
      set(found "${Torch_DIR}")
      set(libraries ${TORCH_LIBRARIES})
      set(includes ${TORCH_INCLUDE_DIRS})
    endif()
  endif()

  unset(version_header)
  find_file(version_header NAMES torch/headeronly/version.h torch/version.h PATHS ${includes} NO_DEFAULT_PATH NO_CACHE)
  file(STRINGS ${version_header} numbers REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE "[^0-9]+([0-9]+)" ".\\1" version "${numbers}")
  string(SUBSTRING "${version}" 1 -1 version)

  add_library(dds::torch INTERFACE IMPORTED ${ARGN})
  set_target_properties(dds::torch PROPERTIES DDS_TORCH_VERSION ${version})
  target_link_libraries(dds::torch INTERFACE ${libraries})
  target_include_directories(dds::torch SYSTEM INTERFACE ${includes})
  target_compile_definitions(dds::torch INTERFACE ${definitions})
  if(NOT dds_FIND_QUIETLY)
    message(STATUS "LibTorch: ${version}, ${found}")
  endif()
endfunction()
