# Files within object code.
#   dds_embed(TARGET NAMESPACE NAME file...)
# gives TARGET the function std::string_view NAMESPACE::NAME(): the files' bytes, one file behind the other, and a zero behind
# the last. Paths are relative to the current folder.
function(dds_embed target namespace name)
  set(files ${ARGN})
  list(TRANSFORM files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ REGEX "^[^/]")
  set(DDS_ASSET_NAMESPACE ${namespace})
  set(DDS_ASSET_NAME ${name})
  set(DDS_ASSET_SYMBOL ${target}_${name})
  list(TRANSFORM files PREPEND ".incbin \\\"" OUTPUT_VARIABLE lines)
  list(TRANSFORM lines APPEND "\\\"\\n")
  list(JOIN lines "\"\n    \"" DDS_ASSET_INCBIN)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_${name}.cpp)
  configure_file(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/asset.cpp.in ${source} @ONLY)
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${files}"
    SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON)
  target_sources(${target} PRIVATE ${source})
endfunction()

set(DDS_PLOTLY_OWN ${PROJECT_SOURCE_DIR}/.deps/plotly/plotly/package_data/plotly.min.js)
if(DEFINED ENV{DDS_PLOTLY_JS})
  set(DDS_PLOTLY_DEFAULT $ENV{DDS_PLOTLY_JS})
else()
  set(DDS_PLOTLY_DEFAULT ${DDS_PLOTLY_OWN})
endif()
set(DDS_PLOTLY_JS ${DDS_PLOTLY_DEFAULT} CACHE FILEPATH
    "plotly.min.js, the chart library of the pages (it comes with the PyPI package plotly)")

# dds_embed_plotly(TARGET NAMESPACE): the same for the chart library, as the function plotly().
function(dds_embed_plotly target namespace)
  if(DDS_DOWNLOAD AND DDS_PLOTLY_JS STREQUAL DDS_PLOTLY_OWN AND NOT EXISTS ${DDS_PLOTLY_JS})
    execute_process(COMMAND bash -euo pipefail -c [[. "$0"; mkdir -p "$deps"; choose_plotly]]
      ${PROJECT_SOURCE_DIR}/src/setup/setup.sh)
  endif()
  if(NOT EXISTS ${DDS_PLOTLY_JS})
    message(FATAL_ERROR "There is no ${DDS_PLOTLY_JS}, the chart library that goes into the library's pages. Either\n"
      "  -DDDS_DOWNLOAD=ON lets this configuration fetch it once, with pip, or\n"
      "  -DDDS_PLOTLY_JS=/path/to/plotly.min.js names one: after `pip install --no-deps --target DIR plotly` it is "
      "DIR/plotly/package_data/plotly.min.js.\n")
  endif()
  dds_embed(${target} ${namespace} plotly ${DDS_PLOTLY_JS})
endfunction()
