#include "src/tool/text.hpp"

namespace dds::tool {

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too, and two bytes of UTF-8.
    const bool two = c == 0xC2 && i + 1 < text.size() && (text[i + 1] & 0xE0) == 0x80;
    if (two) ++i;
    out += two || c < ' ' || c == 0x7F ? '?' : text[i];
  }
  return out;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::size_t last = text.rfind('\n') + 1;
  if (text.substr(last).starts_with("RuntimeError: ")) return text.substr(last);
  return text.substr(0, text.find('\n'));
}

}  // namespace dds::tool
