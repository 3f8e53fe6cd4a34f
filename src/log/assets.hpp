// The report's own part of its page, held within the library (src/page/embed.cmake).
#pragma once

#include <string_view>

namespace dds::log::asset {

std::string_view body();    ///< report/body.html
std::string_view guide();   ///< docs/guide.md
std::string_view script();  ///< report/*.js, one behind the other
std::string_view causes();  ///< docs/what_to_do.md

}  // namespace dds::log::asset
