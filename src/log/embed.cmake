# dds_embed(TARGET): gives TARGET the functions of src/log/assets.hpp, the files themselves within its object code.
set(DDS_PLOTLY_OWN ${PROJECT_SOURCE_DIR}/.deps/plotly/plotly/package_data/plotly.min.js)
if(DEFINED ENV{DDS_PLOTLY_JS})
  set(DDS_PLOTLY_DEFAULT $ENV{DDS_PLOTLY_JS})
else()
  set(DDS_PLOTLY_DEFAULT ${DDS_PLOTLY_OWN})
endif()
set(DDS_PLOTLY_JS ${DDS_PLOTLY_DEFAULT} CACHE FILEPATH
    "plotly.min.js, the chart library of the report (it comes with the PyPI package plotly)")
set(DDS_REPORT_SOURCES ${CMAKE_CURRENT_LIST_DIR}/report)
# The scripts in the order in which they need each other.
set(DDS_REPORT_SCRIPTS theme.js data.js axes.js charts.js layers.js heat.js llc.js spectra.js tables.js main.js)
set(DDS_ASSET_TEMPLATE ${CMAKE_CURRENT_LIST_DIR}/asset.cpp.in)

# One file or several, one behind the other, as the function dds::log::asset::NAME().
function(dds_embed_asset target name)
  set(DDS_ASSET_NAME ${name})
  list(TRANSFORM ARGN PREPEND ".incbin \\\"" OUTPUT_VARIABLE DDS_ASSET_LINES)
  list(TRANSFORM DDS_ASSET_LINES APPEND "\\\"\\n")
  list(JOIN DDS_ASSET_LINES "\"\n    \"" DDS_ASSET_INCBIN)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/asset_${name}.cpp)
  configure_file(${DDS_ASSET_TEMPLATE} ${source} @ONLY)
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${ARGN}" SKIP_UNITY_BUILD_INCLUSION ON)
  target_sources(${target} PRIVATE ${source})
endfunction()

function(dds_embed target)
  if(DDS_DOWNLOAD AND DDS_PLOTLY_JS STREQUAL DDS_PLOTLY_OWN AND NOT EXISTS ${DDS_PLOTLY_JS})
    execute_process(COMMAND bash -euo pipefail -c [[. "$0"; mkdir -p "$deps"; choose_plotly]]
      ${PROJECT_SOURCE_DIR}/src/setup/setup.sh)
  endif()
  if(NOT EXISTS ${DDS_PLOTLY_JS})
    message(FATAL_ERROR "There is no ${DDS_PLOTLY_JS}, the chart library that goes into the library's reports. Either\n"
      "  -DDDS_DOWNLOAD=ON lets this configuration fetch it once, with pip, or\n"
      "  -DDDS_PLOTLY_JS=/path/to/plotly.min.js names one: after `pip install --no-deps --target DIR plotly` it is "
      "DIR/plotly/package_data/plotly.min.js.\n")
  endif()
  dds_embed_asset(${target} page ${DDS_REPORT_SOURCES}/page.html)
  dds_embed_asset(${target} style ${DDS_REPORT_SOURCES}/style.css)
  list(TRANSFORM DDS_REPORT_SCRIPTS PREPEND ${DDS_REPORT_SOURCES}/)
  dds_embed_asset(${target} script ${DDS_REPORT_SCRIPTS})
  dds_embed_asset(${target} plotly ${DDS_PLOTLY_JS})
endfunction()
