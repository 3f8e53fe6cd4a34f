# Defines the imported target dds::torch: LibTorch's headers and libraries, from the first of
#   1. the user's own, through find_package(Torch): Torch_DIR or CMAKE_PREFIX_PATH;
#   2. DDS_TORCH_ROOT: the `torch` folder of a Python wheel (what the set-up installs, or an installed `torch` package).
#
# A wheel's own TorchConfig.cmake insists on the CUDA toolkit that the wheel was built with, which compiling against
# libtorch_cpu does not need; so a wheel is taken by its folders instead.
if(TARGET dds::torch)
  return()
endif()

set(DDS_TORCH_ROOT "" CACHE PATH "The torch folder of a Python wheel (holds include/ and lib/)")
if(NOT DDS_TORCH_ROOT AND NOT Torch_DIR AND NOT CMAKE_PREFIX_PATH AND EXISTS ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch)
  set(DDS_TORCH_ROOT ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch)
endif()

add_library(dds::torch INTERFACE IMPORTED GLOBAL)
if(DDS_TORCH_ROOT)
  if(NOT EXISTS ${DDS_TORCH_ROOT}/lib/libtorch_cpu.so)
    message(FATAL_ERROR "DDS_TORCH_ROOT=${DDS_TORCH_ROOT} holds no lib/libtorch_cpu.so: expected the torch folder of a wheel")
  endif()
  set_target_properties(dds::torch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${DDS_TORCH_ROOT}/include;${DDS_TORCH_ROOT}/include/torch/csrc/api/include"
    INTERFACE_LINK_LIBRARIES "${DDS_TORCH_ROOT}/lib/libtorch_cpu.so;${DDS_TORCH_ROOT}/lib/libc10.so"
    INTERFACE_LINK_OPTIONS "-Wl,-rpath,${DDS_TORCH_ROOT}/lib;-Wl,--allow-shlib-undefined")
  set_property(TARGET dds::torch PROPERTY INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
    "${DDS_TORCH_ROOT}/include;${DDS_TORCH_ROOT}/include/torch/csrc/api/include")
else()
  find_package(Torch REQUIRED)
  target_link_libraries(dds::torch INTERFACE ${TORCH_LIBRARIES})
  target_include_directories(dds::torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
endif()
