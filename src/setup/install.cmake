# What `cmake --install` installs, by component: runtime (the shared library), development (headers, the library to link with,
# the package for find_package) and tools (the command `dds`); and what `cpack` packs of it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Where LibTorch lies, unless that is find_package(Torch)'s affair.
get_target_property(torch_libraries dds::torch INTERFACE_LINK_LIBRARIES)
list(GET torch_libraries 0 torch_folder)
cmake_path(GET torch_folder PARENT_PATH torch_folder)

set(DDS_BUILT_WITH_TORCH "")  # the folder that has it, if it is one
if(torch_folder MATCHES "/lib$" AND EXISTS ${torch_folder}/libtorch_cpu.so)
  cmake_path(GET torch_folder PARENT_PATH DDS_BUILT_WITH_TORCH)
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/dds)
install(TARGETS dds EXPORT dds
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE COMPONENT development
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/dds DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT dds NAMESPACE dds:: FILE dds-targets.cmake DESTINATION ${package} COMPONENT development)

get_target_property(DDS_TORCH_VERSION dds::torch DDS_TORCH_VERSION)
string(REGEX MATCH "^[0-9]+[.][0-9]+" DDS_TORCH_RELEASE ${DDS_TORCH_VERSION})
configure_package_config_file(src/setup/dds-config.cmake.in dds-config.cmake INSTALL_DESTINATION ${package}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(dds-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/dds-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/dds-config-version.cmake
    src/setup/torch.cmake src/setup/find_torch.cmake
  DESTINATION ${package} COMPONENT development)

set(components development)
if(BUILD_SHARED_LIBS)
  list(APPEND components runtime)
endif()
if(TARGET dds_tool)
  # A program has to find its LibTorch by itself, and only that of a system's package lies where the loader looks.
  set_target_properties(dds_tool_commands PROPERTIES INSTALL_RPATH "${torch_folder}")
  install(TARGETS dds_tool RUNTIME COMPONENT tools)
  install(TARGETS dds_tool_commands RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR}/dds COMPONENT tools)
  install(TARGETS dds_preload dds_attach LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/dds COMPONENT tools)
  install(FILES src/tool/dds.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME dds COMPONENT tools)
  list(APPEND components tools)
endif()
foreach(component IN LISTS components)
  install(FILES LICENSE CHANGELOG.md src/docs/third_party.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/dds-torch-${component} COMPONENT ${component})
endforeach()

set(CPACK_PACKAGE_NAME dds-torch)
set(CPACK_PACKAGE_VENDOR "The DDS authors")
set(CPACK_PACKAGE_CONTACT "The DDS authors <dds@localhost>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_VERBATIM_VARIABLES ON)

# One Debian package per component; dpkg-shlibdeps finds the packages of what the binaries need, and a LibTorch that is in
# none passes it as a private one.
if(torch_folder)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${torch_folder})
else()
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS libtorch-dev)
endif()
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libdds-torch${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libdds-torch-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME dds-torch)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "${PROJECT_DESCRIPTION}: the shared library, for LibTorch ${DDS_TORCH_VERSION}")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "${PROJECT_DESCRIPTION}: headers and library, for LibTorch ${DDS_TORCH_VERSION}")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "${PROJECT_DESCRIPTION}: the command dds")
if(BUILD_SHARED_LIBS)
  set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
endif()
include(CPack)
