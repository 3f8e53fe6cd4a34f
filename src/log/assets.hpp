// The files that a report is made of, held within the library (src/log/embed.cmake).
#pragma once

#include <string_view>

namespace dds::log::asset {

std::string_view page();    ///< report/page.html
std::string_view style();   ///< report/style.css
std::string_view script();  ///< report/*.js, one behind the other
std::string_view plotly();  ///< plotly.min.js

}  // namespace dds::log::asset
