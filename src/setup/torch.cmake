# Defines the imported target dds::torch: LibTorch's headers and libraries, wherever find_torch.cmake found them.
#
# A wheel's own TorchConfig.cmake insists on the CUDA toolkit that the wheel was built with, which compiling against
# libtorch_cpu does not need; so LibTorch is taken by its folders where they lie together, and by find_package(Torch) where
# they do not.
if(TARGET dds::torch)
  return()
endif()

set(DDS_TORCH_ROOT "" CACHE PATH "A LibTorch, such as the torch folder of a Python wheel (holds include/ and lib/)")
if(EXISTS /dev/nvidia0)
  set(DDS_CUDA_DEFAULT ON)
endif()
option(DDS_CUDA "Link LibTorch's CUDA libraries too, where LibTorch has them" ${DDS_CUDA_DEFAULT})
include(${CMAKE_CURRENT_LIST_DIR}/find_torch.cmake)
dds_find_torch()

add_library(dds::torch INTERFACE IMPORTED GLOBAL)
if(DDS_TORCH_ROOT)
  if(NOT EXISTS ${DDS_TORCH_ROOT}/lib/libtorch_cpu.so)
    message(FATAL_ERROR "DDS_TORCH_ROOT=${DDS_TORCH_ROOT} holds no lib/libtorch_cpu.so: expected the torch folder of a wheel")
  endif()
  set(DDS_TORCH_LIBRARIES ${DDS_TORCH_ROOT}/lib/libtorch_cpu.so ${DDS_TORCH_ROOT}/lib/libc10.so)
  if(DDS_CUDA AND EXISTS ${DDS_TORCH_ROOT}/lib/libtorch_cuda.so)
    # Nothing refers to libtorch_cuda by name: it registers its kernels when it is loaded.
    list(APPEND DDS_TORCH_LIBRARIES ${DDS_TORCH_ROOT}/lib/libc10_cuda.so
      -Wl,--push-state,--no-as-needed,${DDS_TORCH_ROOT}/lib/libtorch_cuda.so,${DDS_TORCH_ROOT}/lib/libtorch.so,--pop-state)
  endif()
  target_link_libraries(dds::torch INTERFACE ${DDS_TORCH_LIBRARIES})
  target_link_options(dds::torch INTERFACE LINKER:-rpath,${DDS_TORCH_ROOT}/lib)
  target_include_directories(dds::torch SYSTEM INTERFACE
    ${DDS_TORCH_ROOT}/include ${DDS_TORCH_ROOT}/include/torch/csrc/api/include)
  # Wheels before 2.7 mostly use the ABI from before C++11, in which std::string is another type.
  file(STRINGS ${DDS_TORCH_ROOT}/lib/libc10.so DDS_TORCH_CXX11 REGEX "__cxx11" LIMIT_COUNT 1)
  if(NOT DDS_TORCH_CXX11)
    message(WARNING "${DDS_TORCH_ROOT} has the C++ ABI from before C++11. The library is built to match; fmt and GoogleTest "
                    "have to match too, and Debian's do not.")
    target_compile_definitions(dds::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
  endif()
else()
  # Visible in the whole project, as dds::torch itself is.
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
  find_package(Torch QUIET)
  unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
  if(NOT Torch_FOUND)
    message(FATAL_ERROR "No LibTorch: run src/setup/setup.sh (which ./tests/run and ./experiments/run do), or give "
                        "-DDDS_TORCH_ROOT=/path/to/torch or -DTorch_DIR=/folder/of/TorchConfig.cmake")
  endif()
  target_link_libraries(dds::torch INTERFACE ${TORCH_LIBRARIES})
  target_include_directories(dds::torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
endif()
message(STATUS "LibTorch: ${DDS_TORCH_ROOT}${Torch_DIR}")
