# Which LibTorch to build with; the first of
#   1. DDS_TORCH_ROOT (CMake variable or environment): a folder with include/ and lib/, such as the `torch` folder of a wheel;
#   2. Torch_DIR or CMAKE_PREFIX_PATH (CMake variables or environment), where a TorchConfig.cmake is found there;
#   3. in an installed package: the one that the library was built with, DDS_BUILT_WITH_TORCH, if it is still there;
#   4. the `torch` package of the python3 on the PATH, if it is 1.13 or later and has the C++11 ABI;
#   5. what src/setup/setup.sh installed into the clone: .deps/libtorch.
#
# dds_find_torch() sets DDS_TORCH_ROOT, or Torch_DIR where the libraries do not lie beside the configuration (Debian's
# libtorch-dev), in its caller; or neither. As a script, `cmake -P find_torch.cmake` prints 1, 2 and 4 as an argument for cmake.

# In libc10.so with the C++ ABI from before C++11: torchCheckFail(..., std::string const&). (Names of std::string in the
# newer ABI tell nothing: wheels carry some of libstdc++ in either.)
set(DDS_OLD_ABI torchCheckFailEPKcS2_jRKSs)

# Says where a usable torch package is without importing it; its argument is DDS_OLD_ABI.
set(DDS_FIND_TORCH_PYTHON [[
import importlib.util, pathlib, re, sys
spec = importlib.util.find_spec("torch")
root = pathlib.Path(spec.origin).parent if spec and spec.origin else None
if root and (root / "lib/libc10.so").exists() and (root / "include/torch").exists():
    version = re.search(r"""__version__ *= *['"](\d+)\.(\d+)""", (root / "version.py").read_text())
    old_abi = sys.argv[1].encode() in (root / "lib/libc10.so").read_bytes()
    if tuple(map(int, version.groups())) >= (1, 13) and not old_abi:
        print(root)
]])

function(dds_find_torch)
  set(root "${DDS_TORCH_ROOT}")
  if(NOT root)
    set(root "$ENV{DDS_TORCH_ROOT}")
  endif()
  if(NOT root)
    string(REPLACE ":" ";" prefixes "$ENV{CMAKE_PREFIX_PATH}")
    unset(config)  # a caller's own variable of that name would end the search
    find_path(config TorchConfig.cmake NO_DEFAULT_PATH NO_CACHE
      HINTS ${Torch_DIR} $ENV{Torch_DIR} ${CMAKE_PREFIX_PATH} ${prefixes}
      PATH_SUFFIXES Torch share/cmake/Torch lib/cmake/Torch lib/x86_64-linux-gnu/cmake/Torch)
    if(config)
      get_filename_component(root ${config}/../../.. ABSOLUTE)
      if(NOT EXISTS ${root}/lib/libtorch_cpu.so)
        set(Torch_DIR ${config} PARENT_SCOPE)
        return()
      endif()
    endif()
  endif()
  if(NOT root AND EXISTS "${DDS_BUILT_WITH_TORCH}/lib/libtorch_cpu.so")
    set(root "${DDS_BUILT_WITH_TORCH}")
  endif()
  if(NOT root)
    execute_process(COMMAND python3 -c "${DDS_FIND_TORCH_PYTHON}" ${DDS_OLD_ABI}
      OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  if(NOT root AND NOT CMAKE_SCRIPT_MODE_FILE)
    get_filename_component(deps ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../.deps/libtorch/torch ABSOLUTE)
    if(EXISTS ${deps})
      set(root ${deps})
    endif()
  endif()
  set(DDS_TORCH_ROOT "${root}" PARENT_SCOPE)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  dds_find_torch()
  if(Torch_DIR)
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo -DTorch_DIR=${Torch_DIR})
  elseif(DDS_TORCH_ROOT)
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo -DDDS_TORCH_ROOT=${DDS_TORCH_ROOT})
  endif()
endif()
