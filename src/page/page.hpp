// Pages with charts that work offline. A page is one HTML file: the shell page.html with the style, the chart library
// and the scripts of this folder, and what the page's maker adds.
#pragma once

#include <string>
#include <string_view>

namespace dds::page {

/// The page. `body`: HTML of the elements. `data`: JSON, which the scripts find as `data`. `script`: runs after the
/// scripts of this folder, and calls pageIsWhole() at its end.
std::string html(std::string_view body, std::string_view data, std::string_view script);

}  // namespace dds::page
