#include "src/page/page.hpp"

#include <map>

namespace dds::page {
namespace asset {

std::string_view shell();   // page.html
std::string_view style();   // style.css
std::string_view engine();  // *.js, one behind the other
std::string_view plotly();

}  // namespace asset

namespace {

/// JSON that may stand within a <script> element: no "</script>" or "<!--" in it can end or swallow the element.
std::string script_safe(std::string_view json) {
  std::string text;
  for (const char c : json) {
    if (c == '<')
      text += "\\u003c";
    else
      text += c;
  }
  return text;
}

/// The page with every "{{name}}" of its own replaced once; what is put in is not searched again.
std::string filled(std::string_view page, const std::map<std::string_view, std::string_view>& parts) {
  std::string out;
  for (;;) {
    const std::size_t open = page.find("{{");
    out += page.substr(0, open);
    if (open == std::string_view::npos) return out;
    const std::size_t close = page.find("}}", open);
    out += parts.at(page.substr(open + 2, close - open - 2));
    page.remove_prefix(close + 2);
  }
}

}  // namespace

std::string html(std::string_view body, std::string_view data, std::string_view script) {
  const std::string safe = script_safe(data);
  return filled(asset::shell(), {{"style", asset::style()},
                                 {"body", body},
                                 {"data", safe},
                                 {"plotly", asset::plotly()},
                                 {"engine", asset::engine()},
                                 {"script", script}});
}

}  // namespace dds::page
